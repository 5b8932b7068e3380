/*
 * flowyard.h - rings of a running yard, for programs in C.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program attaches to a ring by name, takes packets in batches where they lie, and gives them back. This file is
 * all that it is built from (C11, or C++11), with `pkg-config --cflags --libs flowyard`:
 *
 *     #include <flowyard.h>
 *
 *     struct flowyard_view packets[64];
 *     flowyard_ring *ring = flowyard_attach("yard/0", NULL);
 *     int count;
 *
 *     if (!ring)
 *         return fprintf(stderr, "%s\n", flowyard_error()), 1;
 *     while (flowyard_wait(ring, FLOWYARD_SLEEP, -1) == FLOWYARD_PACKETS)
 *         while ((count = flowyard_take(ring, packets, 64)) > 0)
 *             for (int i = 0; i < count; i++)
 *                 printf("%u bytes, hash %08x\n", packets[i].total, packets[i].hash);
 *     flowyard_detach(ring);
 *
 * PACKETS are the program's from flowyard_take() until the next flowyard_take(), flowyard_release() or
 * flowyard_detach() of the same ring. Nothing is copied: the pointers show the memory that the yard received into.
 * Then the yard uses it for other packets; what is read later is some other packet, and no crash until
 * flowyard_detach(), which takes the memory away.
 *
 * A program that holds packets for long, or takes more at once than a ring has places for, keeps its own ring full:
 * the yard drops or holds this ring's share, and no other's.
 *
 * THREADS. A ring is used by one thread at a time; different rings by as many as there are. A call that meets
 * another on the same ring fails. After fork(2) the child must not touch the parent's rings.
 *
 * ERRORS. Functions that answer a number answer FLOWYARD_ERROR (-1), those that answer a pointer NULL; then
 * flowyard_error() says what went wrong and what to do. A ring that is NULL, detached or none at all is such an
 * error. No call aborts the program.
 *
 * TRUST. The yard is trusted: it can change packets while they are read. With FLOWYARD_WRITE, for which the yard must
 * have a rule, the program may write packets and annotations and is trusted in turn.
 */
#ifndef FLOWYARD_H
#define FLOWYARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define FLOWYARD_STATIC_ASSERT(what, words) static_assert(what, words)
#elif !defined(FLOWYARD_STATIC_ASSERT)
#define FLOWYARD_STATIC_ASSERT(what, words) _Static_assert(what, words)
#endif

/*
 * Version of this interface. A library of another one has another file name (libflowyard.so.N). Within a version,
 * structs that carry their size may grow at the end.
 */
#define FLOWYARD_ABI 1u

/* That of the library that is loaded. */
uint32_t flowyard_abi_version(void);

/* The last error of this thread, in words; "" if there was none. Good until the thread's next call that fails. */
const char *flowyard_error(void);

/* ---- The tag: 64 bytes in front of every packet, as its consumer will see them ---------------------- */

#ifndef FLOWYARD_TAG /* flowyard_plugin.h has the same */
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
 * Offsets count from the packet's start as received, and go on doing so after a function of the user's has taken
 * bytes off it.
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

/* ---- Attaching ----------------------------------------------------------------------------------------- */

/* A ring that was attached to. */
typedef struct flowyard_ring flowyard_ring;

/* flowyard_options.flags: ask for leave to write packets and annotations. */
#define FLOWYARD_WRITE (1u << 0)

/* What can be asked for; all zero but `size` is what NULL asks for. */
struct flowyard_options {
    size_t size;         /* sizeof(struct flowyard_options) */
    const char *socket;  /* path of the yard's socket, if it is not to be found by name; then the ring has no NAME/ */
    const char *program; /* how the yard lists this consumer; NULL: the program's name */
    uint32_t flags;      /* FLOWYARD_WRITE */
    uint32_t zero;       /* 0 */
    int64_t patience_ns; /* how long to try while there is no yard, or its ring is taken; negative: for ever */
};

/*
 * Attaches to NAME/RING or NAME/GROUP/RING, found in FLOWYARD_RUNTIME_DIR if that is set, else in
 * XDG_RUNTIME_DIR/flowyard and /run/flowyard. NULL on failure.
 */
flowyard_ring *flowyard_attach(const char *ring, const struct flowyard_options *options);

/* Gives the ring back, and all packets. NULL is let pass. */
void flowyard_detach(flowyard_ring *ring);

/* What the yard says of a ring. Strings are good until the ring is detached. */
struct flowyard_info {
    size_t size;               /* sizeof(struct flowyard_info), set by the program */
    const char *yard;          /* name of the yard */
    const char *group;         /* name of the ring's group, or "" */
    uint16_t ring;             /* number of the ring in its group */
    uint16_t rings;            /* rings of the group */
    uint16_t port_count;       /* ports of the yard: flowyard_port() */
    uint16_t write;            /* 1 if packets may be written */
    uint32_t annotation_bytes; /* of every packet */
    uint32_t buffer_bytes;     /* of every buffer of the region */
};

/* Fills `info`, as much as its size says. 0, or FLOWYARD_ERROR. */
int flowyard_about(flowyard_ring *ring, struct flowyard_info *info);

/* Name of a port, by its number in tags; NULL if there is none. Good until the ring is detached. */
const char *flowyard_port(flowyard_ring *ring, unsigned port);

/* ---- Packets ------------------------------------------------------------------------------------------- */

/* flowyard_view.flags */
#define FLOWYARD_SLOT_MORE (1u << 0)              /* lies in several buffers: see `further` */
#define FLOWYARD_SLOT_TRUNCATED (1u << 2)         /* fewer bytes than were on the wire */
#define FLOWYARD_SLOT_CHECKSUM_PARTIAL (1u << 3)  /* layer-4 checksum not yet filled in */
#define FLOWYARD_SLOT_GSO (1u << 4)               /* several segments merged into one frame */
#define FLOWYARD_SLOT_VLAN_STRIPPED (1u << 5)     /* a VLAN tag was taken off: see the tag */
#define FLOWYARD_SLOT_FRAGMENT_FALLBACK (1u << 6) /* first fragment did not come in time: goes by addresses */
#define FLOWYARD_SLOT_SHARED (1u << 7)            /* other rings have the same packet: it is not to be written */

/* A part of a packet. */
struct flowyard_segment {
    const uint8_t *data;
    uint32_t len;
    uint32_t zero;
};

/* A packet. Written by flowyard_take(). */
struct flowyard_view {
    uint8_t *data;                          /* the first segment: all of the packet, unless further_count is set */
    uint32_t len;                           /* bytes of it */
    uint32_t total;                         /* bytes captured, over all segments */
    const struct flowyard_segment *further; /* the segments behind it */
    uint32_t further_count;                 /* how many */
    uint32_t hash;                          /* symmetric hash of the conversation */
    const struct flowyard_tag *tag;         /* what is known of the packet */
    uint8_t *annotation;                    /* the application's own bytes; NULL if there are none */
    uint16_t annotation_len;                /* how many */
    uint16_t flags;                         /* FLOWYARD_SLOT_MORE ... */
    uint16_t l3;                            /* innermost IP header, or FLOWYARD_NO_OFFSET; counted as the tag does */
    uint16_t l4;                            /* innermost layer-4 header, or FLOWYARD_NO_OFFSET */
    uint64_t time_ns;                       /* when, by FLOWYARD_CLOCK(tag->flags) */
    uint32_t buffer;                        /* number of its (first) buffer: the same in every process */
    uint8_t port;                           /* number of the port that it came in by */
    uint8_t writable;                       /* 1 if `data` and `annotation` may be written */
    uint16_t zero;                          /* 0 */
};

/*
 * Gives back the packets that the last call gave, and takes up to `count` others. Answers how many: 0 if there are
 * none now, FLOWYARD_ERROR (-1) on failure. Never waits.
 */
int flowyard_take(flowyard_ring *ring, struct flowyard_view *packets, unsigned count);

/* Gives the packets of the last flowyard_take() back now. 0, or FLOWYARD_ERROR. */
int flowyard_release(flowyard_ring *ring);

/* ---- Waiting ------------------------------------------------------------------------------------------- */

/* What there is. */
#define FLOWYARD_ERROR (-1)
#define FLOWYARD_NOTHING 0 /* nothing yet */
#define FLOWYARD_PACKETS 1 /* packets */
#define FLOWYARD_ENDED 2   /* nothing, and there will be no more: flowyard_end() says why */

/* How to wait. */
#define FLOWYARD_SPIN 0  /* look without pause: the shortest delay, and a core to itself */
#define FLOWYARD_YIELD 1 /* let others run between two looks (sched_yield(2)) */
#define FLOWYARD_SLEEP 2 /* sleep until the yard wakes us */

/*
 * Waits for packets, up to `timeout_ns`; a negative one has no end. Answers what there is. A signal handler that ran
 * ends a sleep: FLOWYARD_NOTHING. Packets that were taken stay the program's.
 */
int flowyard_wait(flowyard_ring *ring, int how, int64_t timeout_ns);

/*
 * A descriptor for poll(2), select(2) or epoll(7), of which nothing is to be read. It is the library's, and closed by
 * flowyard_detach(). It becomes readable when there is something to be taken, or the ring ends, after
 * flowyard_prepare_to_wait() has answered FLOWYARD_NOTHING. Negative on failure.
 */
int flowyard_fd(flowyard_ring *ring);

/*
 * Tells the yard that the program will sleep on flowyard_fd(). Answers FLOWYARD_NOTHING: sleep; FLOWYARD_PACKETS or
 * FLOWYARD_ENDED: do not. After waking call flowyard_take() or flowyard_wait(), and this one again before the next
 * sleep.
 */
int flowyard_prepare_to_wait(flowyard_ring *ring);

/* How a ring ended. */
#define FLOWYARD_NOT_ENDED 0
#define FLOWYARD_IN_ORDER 1 /* the yard has ended, and every packet of this ring was taken */
#define FLOWYARD_LOST 2     /* the yard is gone without a word: killed, or crashed */

/* Whether and how it did. FLOWYARD_ERROR on failure. */
int flowyard_end(flowyard_ring *ring);

#ifdef __cplusplus
}
#endif

#endif /* FLOWYARD_H */
