/*
 * subscriber.c - steers by subscriber: all flows of one go to one ring, in both directions.
 *
 * Who a packet's subscriber is:
 *   - in a PPPoE session: its identifier and the client's MAC, so that IPv4, IPv6 and LCP go together;
 *   - in GTP-U: the tunnel endpoint (another in each direction, so the table has both), else the user's address;
 *   - elsewhere: the user's address.
 * A table that other programs fill gives the id of each. Without a table the id is a number made of session and
 * both MACs, or of the user's address, which is the one that lies in a `users` prefix.
 *
 * Writes struct subscriber to the annotation's front, and the id into the tag's user mark. A packet of nobody
 * known has id 0 and goes by the built-in policy.
 *
 * Configuration, one setting a line, # begins a comment:
 *   table = NAME      ask this table (hash, keys of 24 bytes, values of 4)
 *   users = PREFIX    10.0.0.0/8 or 2001:db8::/32; without a table, up to 16 lines
 */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <flowyard_plugin.h>

#include "subscriber.h"

#define MOST_PREFIXES 16
#define ETHERNET 1      /* pcap link type */
#define MAC_BYTES 6
#define IPV4_SOURCE 12  /* RFC 791 section 3.1 */
#define IPV6_SOURCE 8   /* RFC 8200 section 3 */

enum { FROM_USER = 1, TO_USER = 2 };

struct prefix {
    size_t address_bytes;
    unsigned bits;
    uint8_t address[16];
};

struct state {
    const struct flowyard_host *host;
    const struct flowyard_table *table;
    size_t prefixes;
    struct prefix prefix[MOST_PREFIXES];
    uint64_t known, unknown, busy;
};

/* ---- Configuration ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 3, 4)))
static bool refuse(char *error, size_t error_bytes, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_bytes, format, arguments);
    va_end(arguments);
    return false;
}

static bool read_prefix(struct state *state, const char *text, char *error, size_t error_bytes)
{
    char address[64];
    unsigned bits;
    char after;
    if (state->prefixes == MOST_PREFIXES)
        return refuse(error, error_bytes, "more than %d lines of users", MOST_PREFIXES);
    struct prefix *prefix = &state->prefix[state->prefixes];
    if (sscanf(text, "%63[^/]/%u%c", address, &bits, &after) != 2)
        return refuse(error, error_bytes, "users = %s: write 10.0.0.0/8 or 2001:db8::/32", text);
    if (inet_pton(AF_INET, address, prefix->address) == 1)
        prefix->address_bytes = 4;
    else if (inet_pton(AF_INET6, address, prefix->address) == 1)
        prefix->address_bytes = 16;
    else
        return refuse(error, error_bytes, "users = %s: %s is no address", text, address);
    if (bits > prefix->address_bytes * 8)
        return refuse(error, error_bytes, "users = %s: at most /%zu", text, prefix->address_bytes * 8);
    prefix->bits = bits;
    state->prefixes++;
    return true;
}

static bool read_line(struct state *state, char *line, char *error, size_t error_bytes)
{
    char key[32], value[128], after;
    line[strcspn(line, "#\r")] = 0;
    int found = sscanf(line, " %31[a-z] = %127s %c", key, value, &after);
    if (found < 1 && line[strspn(line, " \t")] == 0)
        return true;
    if (found == 2 && strcmp(key, "users") == 0)
        return read_prefix(state, value, error, error_bytes);
    if (found == 2 && strcmp(key, "table") == 0) {
        const struct flowyard_host *host = state->host;
        size_t key_bytes = sizeof(struct subscriber_key), value_bytes = sizeof(uint32_t);
        state->table = host->table_open(host, value, key_bytes, value_bytes, error, error_bytes);
        return state->table != NULL;
    }
    return refuse(error, error_bytes, "cannot read \"%s\": write table = NAME or users = PREFIX", line);
}

static void *open_instance(const struct flowyard_host *host, const char *config, size_t config_len, char *error,
                           size_t error_bytes)
{
    (void)config_len;
    struct state *state = calloc(1, sizeof *state);
    char *text = strdup(config);
    bool good = state && text;
    if (!good)
        refuse(error, error_bytes, "no memory");
    if (good && host->annotation_bytes < sizeof(struct subscriber))
        good = refuse(error, error_bytes, "needs %zu bytes of annotation, and the yard has %u: give it 64",
                      sizeof(struct subscriber), host->annotation_bytes);
    if (good)
        state->host = host;
    char *place = NULL;
    for (char *line = good ? strtok_r(text, "\n", &place) : NULL; line && good; line = strtok_r(NULL, "\n", &place))
        good = read_line(state, line, error, error_bytes);
    if (good && !state->table && !state->prefixes)
        good = refuse(error, error_bytes, "who are the users? write table = NAME, or users = PREFIX");
    free(text);
    if (good)
        return state;
    free(state);
    return NULL;
}

/* ---- Packets ------------------------------------------------------------------------------------------- */

static bool is_user(const struct state *state, const uint8_t *address, size_t address_bytes)
{
    for (size_t i = 0; i < state->prefixes; i++) {
        const struct prefix *prefix = &state->prefix[i];
        unsigned whole = prefix->bits / 8, rest = prefix->bits % 8;
        if (prefix->address_bytes == address_bytes && memcmp(prefix->address, address, whole) == 0 &&
            (rest == 0 || ((prefix->address[whole] ^ address[whole]) >> (8 - rest)) == 0))
            return true;
    }
    return false;
}

static uint32_t id_in_table(struct state *state, const struct subscriber_key *key)
{
    uint8_t value[4];
    switch (state->host->table_get(state->table, key, sizeof *key, value, sizeof value)) {
    case FLOWYARD_FOUND:
        return value[0] | (uint32_t)value[1] << 8 | (uint32_t)value[2] << 16 | (uint32_t)value[3] << 24;
    case FLOWYARD_BUSY:
        state->busy++;
        return 0;
    default:
        return 0;
    }
}

/* Not 0. FNV-1a: good enough to number a few million. */
static uint32_t number_of(const void *bytes, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 16777619u;
    return hash ? hash : 1;
}

/* Ids that follow one another are hashes that do not. */
static uint32_t spread(uint32_t id)
{
    id = (id ^ id >> 16) * 0x85ebca6bu;
    id = (id ^ id >> 13) * 0xc2b2ae35u;
    return id ^ id >> 16;
}

static struct subscriber by_session(struct state *state, const struct flowyard_packet *packet)
{
    struct subscriber found = {.session = (uint16_t)packet->tag->tunnel_id};
    const uint8_t *to = packet->bytes, *from = packet->bytes + MAC_BYTES;
    struct subscriber_key key = {.by = SUBSCRIBER_BY_SESSION};
    key.session[0] = (uint8_t)(found.session >> 8);
    key.session[1] = (uint8_t)found.session;
    if (state->table) {
        memcpy(key.address, from, MAC_BYTES);
        found.direction = FROM_USER;
        found.id = id_in_table(state, &key);
        if (!found.id) {
            memcpy(key.address, to, MAC_BYTES);
            found.direction = TO_USER;
            found.id = id_in_table(state, &key);
        }
    } else { /* which of the two is the client cannot be seen: both, in order */
        bool order = memcmp(from, to, MAC_BYTES) < 0;
        memcpy(key.address, order ? from : to, MAC_BYTES);
        memcpy(key.address + MAC_BYTES, order ? to : from, MAC_BYTES);
        found.id = number_of(&key, sizeof key);
    }
    found.by = SUBSCRIBER_BY_SESSION;
    return found;
}

/* The IP header at `at`, its version and the length of its addresses; NULL if it is not all there. */
static const uint8_t *addresses(const struct flowyard_packet *packet, uint16_t at, size_t *address_bytes)
{
    if (at >= packet->bytes_len)
        return NULL;
    bool v6 = packet->bytes[at] >> 4 == 6;
    *address_bytes = v6 ? 16 : 4;
    size_t source = at + (size_t)(v6 ? IPV6_SOURCE : IPV4_SOURCE);
    return source + 2 * *address_bytes <= packet->bytes_len ? packet->bytes + source : NULL;
}

static struct subscriber by_teid(struct state *state, const struct flowyard_packet *packet)
{
    struct subscriber found = {.teid = packet->tag->tunnel_id};
    size_t address_bytes;
    /* One IP header outside, one inside: the outermost is the tunnel's. */
    const uint8_t *source = packet->tag->depth <= 2 ? addresses(packet, packet->tag->outer_l3, &address_bytes) : NULL;
    if (!source || !state->table)
        return found;
    struct subscriber_key key = {.by = SUBSCRIBER_BY_TEID};
    uint32_t teid = htonl(found.teid);
    memcpy(key.teid, &teid, sizeof teid);
    memcpy(key.address, source + address_bytes, address_bytes);
    found.id = id_in_table(state, &key);
    found.by = SUBSCRIBER_BY_TEID;
    return found;
}

static void by_address(struct state *state, const struct flowyard_packet *packet, struct subscriber *found)
{
    size_t address_bytes;
    const struct flowyard_tag *tag = packet->tag;
    /* An ICMP error comes from anywhere on the way: what it quotes says whose it is. */
    bool error = tag->kind & FLOWYARD_ICMP_ERROR;
    uint16_t at = error ? (uint16_t)(tag->inner_l4 + FLOWYARD_ICMP_QUOTE) : tag->inner_l3;
    const uint8_t *source = addresses(packet, at, &address_bytes);
    for (size_t side = 0; source && side < 2; side++) {
        struct subscriber_key key = {.by = SUBSCRIBER_BY_ADDRESS};
        memcpy(key.address, source + side * address_bytes, address_bytes);
        if (state->table)
            found->id = id_in_table(state, &key);
        else if (is_user(state, key.address, address_bytes))
            found->id = number_of(&key, sizeof key);
        if (found->id) {
            found->by = SUBSCRIBER_BY_ADDRESS;
            found->direction = (side == 1) == error ? FROM_USER : TO_USER; /* an error goes against its quote */
            return;
        }
    }
}

static struct subscriber subscriber_of(struct state *state, const struct flowyard_packet *packet)
{
    const struct flowyard_tag *tag = packet->tag;
    struct subscriber found = {0};
    if (tag->tunnel_kind == FLOWYARD_TUNNEL_PPPOE && tag->depth <= 1 && tag->link == ETHERNET &&
        packet->bytes_len >= 2 * MAC_BYTES)
        found = by_session(state, packet);
    else if (tag->tunnel_kind == FLOWYARD_TUNNEL_GTP)
        found = by_teid(state, packet);
    if (!found.id)
        by_address(state, packet, &found);
    if (!found.id)
        found.by = found.direction = 0;
    return found;
}

static int steer(void *instance, struct flowyard_batch *batch)
{
    struct state *state = instance;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->verdicts[i].kind != FLOWYARD_BUILT_IN)
            continue; /* decided by an earlier function of a chain */
        struct flowyard_packet packet = flowyard_packet_at(batch, i);
        struct subscriber found = subscriber_of(state, &packet);
        memcpy(packet.annotation, &found, sizeof found); /* always: an earlier packet left its own there */
        flowyard_mark(batch, i, found.id);
        if (found.id) {
            struct flowyard_verdict *verdict = flowyard_decide(batch, i);
            verdict->kind = FLOWYARD_HASH;
            verdict->value = spread(found.id);
        }
        *(found.id ? &state->known : &state->unknown) += 1;
    }
    return 0;
}

/* ---- Beside packets ------------------------------------------------------------------------------------ */

static void adopt(void *instance, void *old_instance)
{
    struct state *state = instance;
    const struct state *old = old_instance;
    state->known = old->known;
    state->unknown = old->unknown;
    state->busy = old->busy;
}

static int counter(void *instance, uint32_t index, const char **name, uint64_t *value)
{
    const struct state *state = instance;
    const struct { const char *name; uint64_t value; } counters[] = {
        {"packets of known subscribers", state->known},
        {"packets of nobody known", state->unknown},
        {"look-ups while the entry changed", state->busy},
    };
    if (index >= sizeof counters / sizeof *counters)
        return 1;
    *name = counters[index].name;
    *value = counters[index].value;
    return 0;
}

static const struct flowyard_plugin plugin = {
    .abi = FLOWYARD_PLUGIN_ABI,
    .size = sizeof plugin,
    .name = "subscriber",
    .state_version = 1, /* of struct state */
    .open = open_instance,
    .close = free,
    .steer = steer,
    .adopt = adopt,
    .counter = counter,
};

FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void)
{
    return &plugin;
}
