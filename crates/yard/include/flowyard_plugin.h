/*
 * flowyard_plugin.h - steering functions for Flowyard in a shared object.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A plug-in sees every packet of a yard in batches, may write its annotation, correct its tag, and says
 * where it goes. This file is all that it is built from (C11, or C++11):
 *
 *     #include <flowyard_plugin.h>
 *
 *     static int steer(void *state, struct flowyard_batch *batch)
 *     {
 *         (void)state;
 *         for (size_t i = 0; i < batch->count; i++) {
 *             if (batch->verdicts[i].kind != FLOWYARD_BUILT_IN)
 *                 continue;                        // decided by an earlier function of a chain
 *             if (batch->tags[i].protocol == 17) { // UDP to ring 0, all else by the built-in policy
 *                 struct flowyard_verdict *verdict = flowyard_decide(batch, i);
 *                 verdict->kind = FLOWYARD_RING, verdict->ring = 0;
 *             }
 *         }
 *         return 0;
 *     }
 *
 *     static const struct flowyard_plugin plugin = {
 *         .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "udp-first", .steer = steer,
 *     };
 *
 *     FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) { return &plugin; }
 *
 * built with `cc -O2 -fPIC -shared -o udp-first.so udp-first.c`.
 *
 * INSTANCES AND THREADS. Each dispatcher thread of a yard has an instance, made by `open`, ended by `close`.
 * An instance is never used by two threads at once, so it needs no locks; but it is opened and checked in
 * one thread, works in a second and is closed in a third, so nothing of it may hang on a thread (no
 * thread-locals). Static variables are shared by all instances of one loaded file, and by nothing else.
 *
 * CALLS. open, check, [adopt], then steer, control, counter and tick in any order, then close: exactly
 * once for each open that answered a state, and never before all calls into the instance have returned.
 *
 * REPLACEMENT. Loading copies the file first: overwriting or removing it does nothing to what runs. A
 * new version is loaded beside the old one, all of its instances opened and checked, and each dispatcher
 * changes over between two batches of its own. If one instance cannot be had, all keep what they have.
 *
 * TRUST. A plug-in runs inside the yard's process with all of its rights. One that crashes, writes where it
 * must not, throws an exception or unwinds out of a function takes the process with it; one that does not
 * return holds the dispatcher up for good. After a call of `steer` that takes longer than the function's budget
 * (10 ms unless set otherwise) the batch goes by the built-in policy and is counted; 100 failed calls in a row
 * switch the function off.
 *
 * OUTPUT. Standard output belongs to the program that runs the yard: `flowyard run --json` prints one object there,
 * and sends what a plug-in prints to standard error. In a program of your own nobody does that for you. Print
 * to standard error, and leave to `counter` what happens with packets.
 *
 * BYTE ORDER. Numbers are in the order of the machine. Packet bytes are as on the wire.
 */
#ifndef FLOWYARD_PLUGIN_H
#define FLOWYARD_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define FLOWYARD_STATIC_ASSERT(what, words) static_assert(what, words)
#else
#define FLOWYARD_STATIC_ASSERT(what, words) _Static_assert(what, words)
#endif

/* Before the one symbol that a plug-in shows. */
#define FLOWYARD_PLUGIN_EXPORT_VISIBLE __attribute__((visibility("default")))
#ifdef __cplusplus
#define FLOWYARD_PLUGIN_EXPORT extern "C" FLOWYARD_PLUGIN_EXPORT_VISIBLE
#else
#define FLOWYARD_PLUGIN_EXPORT FLOWYARD_PLUGIN_EXPORT_VISIBLE
#endif

/*
 * Version of this interface. A yard loads plug-ins of its own version only. Within a version, structs that
 * carry their size may grow at the end: the yard takes what a plug-in's struct flowyard_plugin has not for
 * NULL, and a plug-in looks at flowyard_host.size before it uses what was added later.
 */
#define FLOWYARD_PLUGIN_ABI 2u

/* Most packets of a batch. */
#define FLOWYARD_BATCH 64u
/* Bytes from one copied annotation to the next. */
#define FLOWYARD_COPY_BYTES 256u

/* ---- The tag: 64 bytes in front of every packet, as its consumer will see them ---------------------- */

#ifndef FLOWYARD_TAG /* flowyard.h has the same */
#define FLOWYARD_TAG
/* An offset that says "there is none". */
#define FLOWYARD_NO_OFFSET 0xffffu

/* flowyard_tag.flags: what was left undone to, or taken from, the packet before the yard got it. */
#define FLOWYARD_CHECKSUM_PARTIAL (1u << 0)  /* layer-4 checksum not yet filled in */
#define FLOWYARD_CHECKSUM_VALID (1u << 1)    /* verified by a card */
#define FLOWYARD_GSO (1u << 2)               /* several segments merged into one frame */
#define FLOWYARD_VLAN_STRIPPED (1u << 3)     /* the outermost VLAN tag is in stripped_vlan, not in the bytes */
#define FLOWYARD_TRUNCATED (1u << 4)         /* fewer bytes than were on the wire */
#define FLOWYARD_HARDWARE_TIME (1u << 5)     /* time_ns is the card's own */
#define FLOWYARD_CARD_HASH (1u << 6)         /* card_hash holds the hash of the card */
#define FLOWYARD_FRAGMENT_FALLBACK (1u << 7) /* first fragment did not come in time: goes by addresses */
#define FLOWYARD_OUTGOING (1u << 8)          /* sent by this host rather than received */
#define FLOWYARD_VLAN_SERVICE (1u << 9)      /* TPID of stripped_vlan was 0x88a8, not 0x8100 */

/* The top byte of flowyard_tag.flags: which clock time_ns is by. */
#define FLOWYARD_CLOCK(flags) ((flags) >> 24)
#define FLOWYARD_CLOCK_NONE 0u
#define FLOWYARD_CLOCK_REALTIME 1u  /* ns since 1970-01-01 UTC, CLOCK_REALTIME */
#define FLOWYARD_CLOCK_RECORDED 2u  /* ns since 1970-01-01 UTC, as recorded in a capture */
#define FLOWYARD_CLOCK_HARDWARE 3u  /* the card's own */
#define FLOWYARD_CLOCK_GENERATED 4u /* ns since a generator's start */

/* flowyard_tag.kind */
#define FLOWYARD_FRAGMENT_MASK 0x03u  /* the innermost datagram: */
#define FLOWYARD_FRAGMENT_NONE 0x00u  /*   whole */
#define FLOWYARD_FRAGMENT_FIRST 0x01u /*   its first fragment */
#define FLOWYARD_FRAGMENT_LATER 0x02u /*   a later one: no layer-4 header */
#define FLOWYARD_INNER_IPV6 0x08u     /* the innermost IP header is IPv6 */
#define FLOWYARD_ICMP_ERROR 0x10u     /* an ICMP error; the IP header that it quotes is at inner_l4 + … */
#define FLOWYARD_ICMP_QUOTE 8u        /*   … so many bytes */

/* flowyard_tag.tunnel_kind, and what tunnel_id is then */
#define FLOWYARD_TUNNEL_NONE 0u
#define FLOWYARD_TUNNEL_IP 1u     /* 0 */
#define FLOWYARD_TUNNEL_GRE 2u    /* key, 0 without one */
#define FLOWYARD_TUNNEL_PPTP 3u   /* call */
#define FLOWYARD_TUNNEL_GTP 4u    /* TEID of GTP-U */
#define FLOWYARD_TUNNEL_VXLAN 5u  /* VNI */
#define FLOWYARD_TUNNEL_PPPOE 6u  /* session */
#define FLOWYARD_TUNNEL_MPLS 7u   /* bottom label */
#define FLOWYARD_TUNNEL_GENEVE 8u /* VNI */
#define FLOWYARD_TUNNEL_L2TP 9u   /* session */
#define FLOWYARD_TUNNEL_OTHER 10u

/*
 * Offsets count from the packet's start as received, and go on doing so after a pull.
 *
 * A plug-in may correct outer_l3, inner_l3, inner_l4, protocol, kind, tunnel_id, tunnel_kind and vlan, by
 * flowyard_correct(), and set `user`, by flowyard_mark(). What it writes elsewhere in a tag that it corrects is put
 * right by the yard.
 */
struct flowyard_tag {
    uint32_t hash;          /*  0 symmetric hash of the conversation */
    uint16_t ring;          /*  4 ring of the built-in policy */
    uint8_t stop;           /*  6 why dissection ended, as `flowyard inspect` says in words */
    uint8_t depth;          /*  7 IP headers passed */
    uint16_t outer_l3;      /*  8 outermost IP header, or FLOWYARD_NO_OFFSET */
    uint16_t inner_l3;      /* 10 innermost IP header, or FLOWYARD_NO_OFFSET */
    uint16_t inner_l4;      /* 12 innermost layer-4 header, or FLOWYARD_NO_OFFSET */
    uint8_t protocol;       /* 14 innermost IP protocol, behind extension headers */
    uint8_t kind;           /* 15 FLOWYARD_FRAGMENT_MASK and the bits after it */
    uint32_t tunnel_id;     /* 16 identifier of the innermost tunnel, machine order */
    uint8_t tunnel_kind;    /* 20 FLOWYARD_TUNNEL_NONE … */
    uint8_t hash_version;   /* 21 version of the default hash; 0 Toeplitz or a function's own */
    uint16_t vlan;          /* 22 outermost VLAN's TCI, in the frame or stripped; 0 without one */
    uint64_t user;          /* 24 the user's own mark: 0 until a function writes it */
    uint64_t time_ns;       /* 32 when, by FLOWYARD_CLOCK(flags) */
    uint32_t flags;         /* 40 FLOWYARD_CHECKSUM_PARTIAL …, and the clock */
    uint32_t wire_len;      /* 44 bytes on the wire */
    uint32_t len;           /* 48 bytes captured, over all segments */
    uint16_t port;          /* 52 number of the port, in the order in which the yard opened them */
    uint16_t queue;         /* 54 hardware queue, or interface number in a capture */
    uint32_t card_hash;     /* 56 where FLOWYARD_CARD_HASH is set; with FLOWYARD_GSO payload bytes of each part */
    uint16_t stripped_vlan; /* 60 where FLOWYARD_VLAN_STRIPPED is set */
    uint16_t link;          /* 62 pcap link type of the first byte (Ethernet 1, raw IP 101 …) */
};

FLOWYARD_STATIC_ASSERT(sizeof(struct flowyard_tag) == 64, "a tag has 64 bytes");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, outer_l3) == 8, "tag: outer_l3");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, tunnel_id) == 16, "tag: tunnel_id");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, user) == 24, "tag: user");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, time_ns) == 32, "tag: time_ns");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, flags) == 40, "tag: flags");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, port) == 52, "tag: port");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, card_hash) == 56, "tag: card_hash");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_tag, link) == 62, "tag: link");
#endif /* FLOWYARD_TAG */

/* ---- Verdicts ---------------------------------------------------------------------------------------- */

/* flowyard_verdict.kind: where a packet goes */
#define FLOWYARD_BUILT_IN 0u   /* where the built-in policy puts it, or the next function of a chain */
#define FLOWYARD_HASH 1u       /* by `value` as its hash: packets that share it share a ring */
#define FLOWYARD_RING 2u       /* to `ring`, below flowyard_host.rings */
#define FLOWYARD_DROP 3u       /* nowhere; counted as `verdict` */
#define FLOWYARD_SHUNT 4u      /* nowhere, and the rest of its conversation unseen for `value` ms of packet time */
#define FLOWYARD_EVERY_RING 5u /* to every ring; shared, not copied */
#define FLOWYARD_HOST 6u       /* to the host's network stack, where the yard has a way to it */

/*
 * What a function says of a packet. All zero, FLOWYARD_BUILT_IN, when `steer` is called, unless an earlier
 * function of a chain has spoken. Anything may be written: it is checked when it is carried out. What
 * cannot be is counted, and the packet goes by the built-in policy.
 */
struct flowyard_verdict {
    uint8_t kind;   /* FLOWYARD_BUILT_IN … */
    uint8_t zero;   /* 0 */
    uint16_t ring;  /* for FLOWYARD_RING */
    uint32_t value; /* hash for FLOWYARD_HASH, milliseconds for FLOWYARD_SHUNT */
    uint32_t slice; /* bytes to keep of the packet, from its start after `pull`; 0 for all */
    uint16_t pull;  /* bytes to take off the packet's start */
    uint16_t zero2; /* 0 */
};

FLOWYARD_STATIC_ASSERT(sizeof(struct flowyard_verdict) == 16, "a verdict has 16 bytes");

/* ---- Packets ----------------------------------------------------------------------------------------- */

/* Where a packet begins. Not to be looked at but by the functions below. */
struct flowyard_place {
    uint32_t buffer;
    uint32_t region;
    uint16_t offset;
    uint16_t len;
};

FLOWYARD_STATIC_ASSERT(sizeof(struct flowyard_place) == 12, "a place has 12 bytes");

/*
 * Packets of one port, in the order in which they came. Valid until `steer` returns, as is all that is in it. It is
 * handed over as it lies in the yard, so what a plug-in does not look at costs nothing.
 */
struct flowyard_batch {
    size_t count; /* 1 to FLOWYARD_BATCH */
    /* One a packet: what earlier functions of a chain said. To say something: flowyard_decide(). */
    const struct flowyard_verdict *verdicts;
    /*
     * One a packet. They have the hash of the built-in policy, which both directions of a conversation and its
     * fragments share, the ring that the built-in policy chooses, lengths and time. To change one:
     * flowyard_correct(), flowyard_mark().
     */
    const struct flowyard_tag *tags;
    /* The rest is for flowyard_packet_at(). */
    unsigned char *buffers;
    const unsigned char *places;
    unsigned char *copies;
    size_t buffer_bytes;
    uint32_t buffer_count;
    uint32_t place_bytes;
    uint32_t annotation_bytes;
    uint32_t decided;
    uint32_t corrected;
    uint32_t zero;
};

/* One packet of a batch. */
struct flowyard_packet {
    /*
     * Its first segment as received: the whole packet unless it is larger than a buffer. Never NULL; not to be
     * written. Offsets of the tag may lie behind it: compare with bytes_len.
     */
    const uint8_t *bytes;
    /*
     * Its annotation, flowyard_host.annotation_bytes long and aligned to 64, to write; it holds what an
     * earlier packet in the same buffer left there. NULL if the yard has none. A group's function gets a
     * copy: it reads what the yard's function wrote, and what it writes is lost.
     */
    uint8_t *annotation;
    const struct flowyard_tag *tag;
    uint32_t bytes_len; /* bytes of the first segment */
};

/* The packet at `at`, below batch->count. Reads the batch alone, so what is not used of the answer is not computed. */
static inline struct flowyard_packet flowyard_packet_at(const struct flowyard_batch *batch, size_t at)
{
    const void *there = batch->places + at * batch->place_bytes;
    const struct flowyard_place *place = (const struct flowyard_place *)there;
    int inside = place->buffer < batch->buffer_count && (size_t)place->offset + place->len <= batch->buffer_bytes;
    unsigned char *buffer = batch->buffers + (inside ? place->buffer : 0) * batch->buffer_bytes;
    struct flowyard_packet packet;
    packet.bytes = inside ? buffer + place->offset : buffer;
    packet.bytes_len = inside ? place->len : 0;
    packet.annotation = batch->copies ? batch->copies + at * FLOWYARD_COPY_BYTES : buffer;
    if (!batch->annotation_bytes || !inside)
        packet.annotation = NULL;
    packet.tag = &batch->tags[at];
    return packet;
}

/* The verdict of the packet at `at`, to write. */
static inline struct flowyard_verdict *flowyard_decide(struct flowyard_batch *batch, size_t at)
{
    batch->decided = 1;
    return (struct flowyard_verdict *)(uintptr_t)&batch->verdicts[at];
}

/* The tag of the packet at `at`, to correct what a plug-in may correct of it. */
static inline struct flowyard_tag *flowyard_correct(struct flowyard_batch *batch, size_t at)
{
    batch->corrected = 1;
    return (struct flowyard_tag *)(uintptr_t)&batch->tags[at];
}

/* Sets the user's own mark in the tag of the packet at `at`: what corrects nothing else costs one store. */
static inline void flowyard_mark(struct flowyard_batch *batch, size_t at, uint64_t mark)
{
    ((struct flowyard_tag *)(uintptr_t)&batch->tags[at])->user = mark;
}

/* ---- What the yard offers ---------------------------------------------------------------------------- */

/* A named table of the yard, shared with applications. */
struct flowyard_table;

/* Answers of table_get. */
#define FLOWYARD_FOUND 1
#define FLOWYARD_ABSENT 0
#define FLOWYARD_BUSY (-1) /* the entry was being changed, at each of many attempts: take it for absent */

/*
 * Given to `open`. It and the tables opened through it are valid until `close` has returned.
 */
struct flowyard_host {
    uint32_t abi;              /* FLOWYARD_PLUGIN_ABI */
    uint32_t size;             /* bytes of this struct, as the yard knows it */
    uint32_t rings;            /* rings that verdicts may name: 0 to one less */
    uint32_t annotation_bytes; /* in front of every packet: 0, 64, 128, 192 or 256 */
    uint32_t dispatcher;       /* number of the dispatcher that this instance is for */
    uint32_t dispatchers;      /* number of dispatchers */

    /*
     * The table called `name`. key_bytes and value_bytes are those that the plug-in takes it to have, 0 for
     * any. Answers NULL if there is none, or of other sizes: then `error` says so in words, ended by 0.
     * From open, check, control, tick or adopt; not from steer, since it allocates.
     */
    const struct flowyard_table *(*table_open)(const struct flowyard_host *host, const char *name,
                                               size_t key_bytes, size_t value_bytes,
                                               char *error, size_t error_bytes);
    /*
     * Looks `key` up and copies its value into `value`, as much as fits into `value_bytes`. Answers
     * FLOWYARD_FOUND, FLOWYARD_ABSENT or FLOWYARD_BUSY. No lock, no system call, no allocation: made for steer.
     * Numbers in keys and values are little-endian; what comes out of packets is as on the wire.
     */
    int (*table_get)(const struct flowyard_table *table, const void *key, size_t key_bytes,
                     void *value, size_t value_bytes);
};

/* ---- What a plug-in offers --------------------------------------------------------------------------- */

/*
 * All functions but `steer` may be NULL. `error` and `reply` buffers are zeroed beforehand; words in them end
 * with 0 or with the buffer.
 */
struct flowyard_plugin {
    uint32_t abi;           /* FLOWYARD_PLUGIN_ABI */
    uint32_t size;          /* sizeof(struct flowyard_plugin) */
    const char *name;       /* for people and for `adopt`: 1 to 63 printable characters of ASCII, no space */
    uint32_t state_version; /* of what `adopt` takes over: raise it when the state's layout changes */
    uint32_t zero;          /* 0 */

    /*
     * Makes an instance. `config` is what the user gave, config_len bytes and a 0 behind them. Answers its state,
     * or NULL and in `error` why not: nothing is loaded then. Without `open` states are NULL, and a user who
     * gives a config is told that there is no use for it.
     */
    void *(*open)(const struct flowyard_host *host, const char *config, size_t config_len,
                  char *error, size_t error_bytes);
    /* Ends an instance. Packets, tables and host are gone when it returns. */
    void (*close)(void *state);

    /*
     * Says where the packets of a batch go. Other than 0: it could not; the whole batch goes by the built-in
     * policy and is counted as `refused`, tags are as before, annotations as they were written.
     */
    int (*steer)(void *state, struct flowyard_batch *batch);

    /* Called once after `open`. Other than 0: it would not work, and `error` says why; it is not used. */
    int (*check)(void *state, char *error, size_t error_bytes);
    /*
     * Answers a request (`flowyard ctl function`) between batches: the number of bytes written to `reply`; or
     * a negative number to refuse it, with the reason in words in `reply`.
     */
    ptrdiff_t (*control)(void *state, const void *request, size_t request_len, void *reply, size_t reply_bytes);
    /* Called between batches about ten times a second, traffic or not. */
    void (*tick)(void *state);
    /*
     * Takes over what is worth keeping from the instance that this one replaces, between two batches. Called
     * only if that is of a plug-in with the same name and state_version. `old_state` is closed afterwards by
     * the old plug-in, whose code is unloaded then: copy, or take what malloc gave and set its place to NULL;
     * keep no pointer to code, constants or static variables of the old one.
     */
    void (*adopt)(void *state, void *old_state);
    /*
     * Counters for `flowyard ctl status`: sets name and value of counter `index` and answers 0, or something
     * else if there are not that many. The name is copied at once. Same names of several instances are added up.
     */
    int (*counter)(void *state, uint32_t index, const char **name, uint64_t *value);
};

#if UINTPTR_MAX == 0xffffffffffffffffu
FLOWYARD_STATIC_ASSERT(sizeof(struct flowyard_batch) == 80, "batch of version 2");
FLOWYARD_STATIC_ASSERT(sizeof(struct flowyard_host) == 40, "host of version 2");
FLOWYARD_STATIC_ASSERT(offsetof(struct flowyard_plugin, steer) == 40, "plug-in of version 2");
#endif

/* The one symbol that the yard asks a shared object for. Never NULL, and always the same. */
FLOWYARD_PLUGIN_EXPORT_VISIBLE const struct flowyard_plugin *flowyard_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
