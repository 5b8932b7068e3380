/*
 * A plug-in that does what tests ask of it: BUILD and the struct's fields at compile time, the rest in its
 * configuration, words like `generation=5 refuse`.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <flowyard_plugin.h>

#ifndef BUILD
#define BUILD 1
#endif
#ifndef NAME
#define NAME "probe"
#endif
#ifndef STATE_VERSION
#define STATE_VERSION 1
#endif

#define NO_RING 0xffff

struct state {
    const struct flowyard_host *host;
    const struct flowyard_table *table;
    uint64_t generation, seen, ticks, adopted;
    int ring, refuse, slow, group, pull, check_fails, closed;
    char file[256];
};

static const char *word(const char *config, const char *key)
{
    const char *at = strstr(config, key);
    return at ? at + strlen(key) : NULL;
}

static uint64_t number(const char *config, const char *key, uint64_t otherwise)
{
    const char *at = word(config, key);
    return at ? strtoull(at, NULL, 10) : otherwise;
}

static void *probe_open(const struct flowyard_host *host, const char *config, size_t config_len, char *error,
                        size_t error_bytes)
{
    if (config[config_len] != 0 || strlen(config) != config_len) {
        snprintf(error, error_bytes, "the configuration does not end with 0");
        return NULL;
    }
    if (word(config, "open-fails-silently"))
        return NULL;
    if (word(config, "open-fails-at-length")) {
        memset(error, 'x', error_bytes); /* no 0 */
        return NULL;
    }
    if (word(config, "open-fails")) {
        snprintf(error, error_bytes, "dispatcher %u of %u, %u rings, %u bytes: no", host->dispatcher,
                 host->dispatchers, host->rings, host->annotation_bytes);
        return NULL;
    }
    struct state *state = calloc(1, sizeof *state);
    state->host = host;
    state->generation = number(config, "generation=", 0);
    state->ring = (int)number(config, "ring=", NO_RING);
    state->slow = (int)number(config, "slow-ms=", 0);
    state->pull = (int)number(config, "pull=", 0);
    state->refuse = word(config, "refuse") != NULL;
    state->group = word(config, "group") != NULL;
    state->check_fails = word(config, "check-fails") != NULL;
    if (word(config, "file="))
        sscanf(word(config, "file="), "%255s", state->file);
    char name[64];
    if (word(config, "table=") && sscanf(word(config, "table="), "%63s", name) == 1) {
        size_t key_bytes = number(config, "key=", 0), value_bytes = number(config, "value=", 0);
        state->table = host->table_open(host, name, key_bytes, value_bytes, error, error_bytes);
        if (!state->table) {
            free(state);
            return NULL;
        }
    }
    return state;
}

static void probe_close(void *instance)
{
    struct state *state = instance;
    if (state->closed++)
        abort();
    if (state->file[0]) {
        char line[128];
        int len = snprintf(line, sizeof line, "generation %llu build %d seen %llu\n",
                           (unsigned long long)state->generation, BUILD, (unsigned long long)state->seen);
        int fd = open(state->file, O_WRONLY | O_APPEND | O_CREAT, 0600);
        if (fd < 0 || write(fd, line, (size_t)len) != len)
            abort();
        close(fd);
    }
    free(state);
}

static int probe_check(void *instance, char *error, size_t error_bytes)
{
    struct state *state = instance;
    if (state->check_fails)
        snprintf(error, error_bytes, "it would not work");
    return state->check_fails;
}

static int probe_steer(void *instance, struct flowyard_batch *batch)
{
    struct state *state = instance;
    struct flowyard_verdict *verdicts = flowyard_decide(batch, 0);
    size_t count = batch->count;
    if (count < 1 || count > FLOWYARD_BATCH)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct flowyard_packet found = flowyard_packet_at(batch, i), *packet = &found;
        const struct flowyard_tag *tag = packet->tag;
        size_t annotation_bytes = state->host->annotation_bytes;
        if ((uintptr_t)packet->annotation % 64 || !packet->annotation != !annotation_bytes || !packet->bytes ||
            tag->len < packet->bytes_len || tag->wire_len < tag->len || tag->ring >= state->host->rings ||
            verdicts[i].slice)
            abort();
        if (state->group) {
            /* What the yard's function wrote says where to; what is written here is lost. */
            verdicts[i].kind = FLOWYARD_RING;
            verdicts[i].ring = (uint16_t)(packet->annotation[0] % state->host->rings);
            memset(packet->annotation, 0xff, annotation_bytes);
            memset(flowyard_correct(batch, i), 0xff, sizeof *tag);
            continue;
        }
        /* Added, not set: a packet that two saw shows. */
        flowyard_mark(batch, i, tag->user + ((uint64_t)1 << 48 | state->generation << 8 | BUILD));
        if (packet->annotation) {
            uint64_t sum = 0;
            for (size_t at = 0; at < packet->bytes_len; at++)
                sum = sum * 31 + packet->bytes[at];
            memcpy(packet->annotation, &sum, sizeof sum);
            packet->annotation[annotation_bytes - 1] = (uint8_t)tag->user;
        }
        if (state->ring != NO_RING) {
            verdicts[i].kind = FLOWYARD_RING;
            verdicts[i].ring = (uint16_t)state->ring;
        }
        if (state->table) {
            uint32_t key = tag->ring, value = 0xffffffff;
            switch (state->host->table_get(state->table, &key, sizeof key, &value, sizeof value)) {
            case FLOWYARD_FOUND:
                verdicts[i].kind = FLOWYARD_RING;
                verdicts[i].ring = (uint16_t)value;
                break;
            case FLOWYARD_ABSENT:
                verdicts[i].kind = FLOWYARD_DROP;
            }
            if (state->host->table_get(NULL, &key, sizeof key, &value, sizeof value) != FLOWYARD_ABSENT)
                abort();
        }
        verdicts[i].pull = (uint16_t)state->pull;
    }
    state->seen += count;
    if (state->slow)
        nanosleep(&(struct timespec){.tv_nsec = state->slow * 1000000L}, NULL);
    return state->refuse;
}

static ptrdiff_t probe_control(void *instance, const void *request, size_t request_len, void *reply,
                               size_t reply_bytes)
{
    (void)instance;
    if (request_len == 2 && memcmp(request, "no", 2) == 0) {
        snprintf(reply, reply_bytes, "not today");
        return -1;
    }
    if (request_len == 4 && memcmp(request, "much", 4) == 0)
        return (ptrdiff_t)reply_bytes + 1;
    memcpy(reply, request, request_len);
    return (ptrdiff_t)request_len;
}

static void probe_tick(void *instance)
{
    ((struct state *)instance)->ticks++;
}

static void probe_adopt(void *instance, void *old_instance)
{
    struct state *state = instance;
    const struct state *old = old_instance;
    state->seen += old->seen;
    state->adopted = old->adopted + 1;
}

static int probe_counter(void *instance, uint32_t index, const char **name, uint64_t *value)
{
    const struct state *state = instance;
    const char *names[] = {"seen", "ticks", "adopted"};
    const uint64_t values[] = {state->seen, state->ticks, state->adopted};
    if (index > 2)
        return -1;
    *name = names[index];
    *value = values[index];
    return 0;
}

static const struct flowyard_plugin plugin = {
#ifdef ABI
    .abi = ABI,
#else
    .abi = FLOWYARD_PLUGIN_ABI,
#endif
#ifdef SIZE
    .size = SIZE,
#else
    .size = sizeof plugin,
#endif
    .name = NAME,
    .state_version = STATE_VERSION,
#ifndef NO_OPEN
    .open = probe_open,
    .close = probe_close,
#endif
#ifndef NO_STEER
    .steer = probe_steer,
#endif
    .check = probe_check,
    .control = probe_control,
    .tick = probe_tick,
#ifndef NO_OPEN
    .adopt = probe_adopt,
#endif
    .counter = probe_counter,
};

FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void)
{
#ifdef NO_STRUCT
    return NULL;
#else
    return &plugin;
#endif
}
