/*
 * A zero-copy pipeline as a DPDK application has it: packets are received in bursts of 32, parsed, given
 * their hash, gathered per ring and passed on in bursts of 32; a consumer looks at them and frees them to
 * the mempool, out of whose per-core cache the receiving side is supplied again.
 *
 * There is no card: the packets of a lap were laid into their mbufs before the clock runs. What a driver
 * does besides, it does here: it allocates a new mbuf for each that it hands out.
 */
#include <stdio.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <rte_ring.h>

#include "peers.h"

/* Packets of a lap. */
#define LAP 4096
#define RINGS 4
#define SLOTS 1024
/* As many mbufs as a lap has, as many again to supply it with, less one: so mempools are best. */
#define MBUFS (2 * LAP - 1)
#define CACHE 256
/* Bursts of a turn. */
#define BURSTS 2
/* Packets of a ring that may wait for room there. */
#define STAGED (4 * BURST)

typedef void (*hash_burst)(const struct packet *, uint32_t, const uint16_t *, uint32_t *, uint16_t *);

void plain_crc(const struct packet *, uint32_t, const uint16_t *, uint32_t *, uint16_t *);
void ptype_crc(const struct packet *, uint32_t, const uint16_t *, uint32_t *, uint16_t *);

/* Metadata of a packet, in the line before it. */
struct metadata {
	uint32_t words[16];
};

static inline struct metadata *metadata_of(struct rte_mbuf *m)
{
	return rte_pktmbuf_mtod_offset(m, struct metadata *, -(int)sizeof(struct metadata));
}

struct staged {
	struct rte_mbuf *mbufs[STAGED];
	uint32_t count;
};

/* Both sides have rings and pool; the rest is the dispatcher's. */
struct pipeline {
	struct rte_mempool *pool;
	struct rte_ring *rings[RINGS];
	hash_burst hash;
	/* Whether 64 bytes of metadata are written for each packet and read with it; both sides read this. */
	int metadata;
	uint16_t table[BUCKETS];
	struct staged staged[RINGS];
	/* The packets of this lap, and the next one to send. */
	struct rte_mbuf *ready[LAP];
	uint32_t at;
	/* Mbufs that took their places. */
	struct rte_mbuf *fresh[LAP];
	uint32_t supplied;
};

/* Starts DPDK on core `core` with `options`, and makes a pipeline. Once per process; NULL, and why, if it fails. */
struct pipeline *pipeline_open(uint32_t core, int huge, char *why, uint32_t why_bytes)
{
	char cores[16];
	char *options[] = { "flowyard-bench", "-l", cores, "-m", "128", "-d", "librte_mempool_ring.so", "--no-pci",
			    "--no-telemetry", "--log-level=error", huge ? "--in-memory" : "--no-huge", "--no-shconf" };
	const char *failed = "rte_eal_init";
	struct pipeline *p = NULL;

	snprintf(cores, sizeof(cores), "%u", core);
	if (rte_eal_init(RTE_DIM(options), options) < 0)
		goto fail;
	failed = "rte_zmalloc";
	p = rte_zmalloc("pipeline", sizeof(*p), RTE_CACHE_LINE_SIZE);
	if (!p)
		goto fail;
	failed = "rte_pktmbuf_pool_create";
	p->pool = rte_pktmbuf_pool_create("bench", MBUFS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!p->pool)
		goto fail;
	for (int ring = 0; ring < RINGS; ring++) {
		char name[16];

		failed = "rte_ring_create";
		snprintf(name, sizeof(name), "bench-%d", ring);
		p->rings[ring] = rte_ring_create(name, SLOTS, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
		if (!p->rings[ring])
			goto fail;
	}
	for (int bucket = 0; bucket < BUCKETS; bucket++)
		p->table[bucket] = bucket % RINGS;
	failed = "rte_pktmbuf_alloc_bulk";
	if (rte_pktmbuf_alloc_bulk(p->pool, p->fresh, LAP) != 0)
		goto fail;
	p->at = p->supplied = LAP;
	return p;
fail:
	snprintf(why, why_bytes, "%s: %s", failed, rte_strerror(rte_errno));
	return NULL;
}

/* How packets are looked at from now on: 0 not at all, 1 by rte_net_get_ptype(), 2 by the plain parser; 4 more: with metadata. */
void pipeline_method(struct pipeline *p, uint32_t method)
{
	p->metadata = method & 4;
	method &= 3;
	p->hash = method == 0 ? NULL : method == 1 ? ptype_crc : plain_crc;
}

/* Lays packet `index` of the next lap into its mbuf; from 0 up, all of them, when all mbufs are home. */
void pipeline_lay(struct pipeline *p, uint32_t index, const uint8_t *bytes, uint16_t len)
{
	if (index == 0) {
		memcpy(p->ready, p->fresh, sizeof(p->ready));
		p->at = p->supplied = 0;
	}
	struct rte_mbuf *m = p->ready[index];

	memcpy(rte_pktmbuf_mtod(m, void *), bytes, len);
	m->data_len = m->pkt_len = len;
}

/* Passes on what waits for ring `ring`; what does not fit stays. */
static inline void pass_on(struct pipeline *p, unsigned int ring)
{
	struct staged *staged = &p->staged[ring];
	unsigned int sent = rte_ring_sp_enqueue_burst(p->rings[ring], (void **)staged->mbufs, staged->count, NULL);

	staged->count -= sent;
	memmove(staged->mbufs, staged->mbufs + sent, staged->count * sizeof(staged->mbufs[0]));
}

static inline void stage(struct pipeline *p, unsigned int ring, struct rte_mbuf *m)
{
	struct staged *staged = &p->staged[ring];

	staged->mbufs[staged->count++] = m;
	if (staged->count >= BURST)
		pass_on(p, ring);
}

/* A driver's part: new mbufs for those that were handed out. */
static inline void supply(struct pipeline *p)
{
	while (p->supplied < p->at) {
		uint32_t count = RTE_MIN(p->at - p->supplied, (uint32_t)BURST);

		if (rte_pktmbuf_alloc_bulk(p->pool, p->fresh + p->supplied, count) != 0)
			return; /* they are on their way */
		p->supplied += count;
	}
}

static inline void dispatch(struct pipeline *p, struct rte_mbuf **mbufs, uint32_t count)
{
	struct packet packets[BURST];
	uint32_t hashes[BURST];
	uint16_t rings[BURST];

	if (!p->hash) {
		for (uint32_t i = 0; i < count; i++) {
			mbufs[i]->hash.rss = p->at + i;
			stage(p, (p->at + i) % RINGS, mbufs[i]);
		}
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct rte_mbuf *m = mbufs[i];

		packets[i] = (struct packet){ rte_pktmbuf_mtod(m, uint8_t *), m->data_len, m };
	}
	p->hash(packets, count, p->table, hashes, rings);
	for (uint32_t i = 0; i < count; i++) {
		mbufs[i]->hash.rss = hashes[i];
		if (p->metadata) {
			struct rte_mbuf *m = mbufs[i];

			*metadata_of(m) = (struct metadata){ { hashes[i], rings[i], m->data_len, m->pkt_len, p->at + i } };
		}
		stage(p, rings[i], mbufs[i]);
	}
}

/* The dispatcher's turn. Answers whether all packets of the lap were passed on and new mbufs are there. */
int pipeline_sort(struct pipeline *p)
{
	supply(p);
	for (int burst = 0; burst < BURSTS && p->at < LAP; burst++) {
		uint32_t count = RTE_MIN((uint32_t)BURST, LAP - p->at);

		/* No ring may have more waiting than there is room for. */
		for (int ring = 0; ring < RINGS; ring++) {
			if (p->staged[ring].count > STAGED - BURST) {
				pass_on(p, ring);
				if (p->staged[ring].count > STAGED - BURST)
					return 0;
			}
		}
		for (uint32_t next = p->at + count; next < LAP && next < p->at + 2 * count; next++)
			rte_prefetch0(p->ready[next]);
		dispatch(p, p->ready + p->at, count);
		p->at += count;
	}
	if (p->at < LAP)
		return 0;
	uint32_t waiting = 0;

	for (int ring = 0; ring < RINGS; ring++) {
		if (p->staged[ring].count)
			pass_on(p, ring);
		waiting += p->staged[ring].count;
	}
	supply(p);
	return waiting == 0 && p->supplied == LAP;
}

/* Makes the calling thread known, so that it has a cache of mbufs; answers whether it was not. */
int pipeline_enter(void)
{
	return rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0;
}

void pipeline_leave(void)
{
	rte_thread_unregister();
}

/* The consumer's turn: a burst from each ring. Answers how many packets it was. */
uint32_t pipeline_look(struct pipeline *p, uint64_t *sum)
{
	struct rte_mbuf *mbufs[BURST];
	uint32_t seen = 0;

	for (int ring = 0; ring < RINGS; ring++) {
		uint32_t count = rte_ring_sc_dequeue_burst(p->rings[ring], (void **)mbufs, BURST, NULL);

		for (uint32_t i = 0; i < count; i++)
			rte_prefetch0(mbufs[i]);
		for (uint32_t i = 0; i < count && i < AHEAD; i++) {
			rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
			if (p->metadata)
				rte_prefetch0(metadata_of(mbufs[i]));
		}
		for (uint32_t i = 0; i < count; i++) {
			uint64_t first;

			if (i + AHEAD < count) {
				rte_prefetch0(rte_pktmbuf_mtod(mbufs[i + AHEAD], void *));
				if (p->metadata)
					rte_prefetch0(metadata_of(mbufs[i + AHEAD]));
			}
			if (p->metadata) {
				const struct metadata *about = metadata_of(mbufs[i]);

				for (int word = 0; word < 16; word++)
					*sum ^= about->words[word];
			}
			memcpy(&first, rte_pktmbuf_mtod(mbufs[i], void *), sizeof(first));
			*sum ^= mbufs[i]->hash.rss ^ first;
		}
		rte_pktmbuf_free_bulk(mbufs, count);
		seen += count;
	}
	return seen;
}
