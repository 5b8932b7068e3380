/*
 * rte_distributor as a DPDK application has it: packets whose tags are known are given to it in bursts, a worker on
 * another core takes them in lines of eight, looks at them, and returns each line as it asks for the next.
 *
 * As in pipeline.c there is no card: the packets of a lap lie in their mbufs, tags and all, before the clock runs.
 * Mbufs that come back are laid out again in the next lap: the mempool has no part in it.
 */
#include <stdio.h>

#include <rte_distributor.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include "peers.h"

/* Packets of a lap, and mbufs. */
#define LAP 4096
/* Packets that it is given at a time, as in DPDK's example. It remembers at most 127 that were returned. */
#define GIVEN 64
/* Most packets that a worker is given at a time. */
#define LINE 8
#define WORKER 0

struct distributor {
	struct rte_distributor *rte;
	/* The distributing side: the packets of this lap, the next one to give, those that came back. */
	struct rte_mbuf *ready[LAP], *home[LAP];
	uint32_t at, back;
	/* The worker's: what it looks at, and how many of this lap it has seen. */
	struct rte_mbuf *held[LINE] __rte_cache_aligned;
	uint32_t holds, seen;
};

/* Makes a distributor for one worker, once DPDK was started; NULL, and why, if it fails. */
struct distributor *distributor_open(char *why, uint32_t why_bytes)
{
	const char *failed = "rte_zmalloc";
	struct distributor *d = rte_zmalloc("distributor", sizeof(*d), RTE_CACHE_LINE_SIZE);
	struct rte_mempool *pool;

	if (!d)
		goto fail;
	failed = "rte_distributor_create";
	d->rte = rte_distributor_create("bench", SOCKET_ID_ANY, 1, RTE_DIST_ALG_BURST);
	if (!d->rte)
		goto fail;
	failed = "rte_pktmbuf_pool_create";
	pool = rte_pktmbuf_pool_create("distributor", LAP, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!pool)
		goto fail;
	failed = "rte_pktmbuf_alloc_bulk";
	if (rte_pktmbuf_alloc_bulk(pool, d->home, LAP) != 0)
		goto fail;
	d->at = d->back = LAP;
	return d;
fail:
	snprintf(why, why_bytes, "%s: %s", failed, rte_strerror(rte_errno));
	return NULL;
}

/* Lays packet `index` of the next lap into its mbuf; from 0 up, all of them, when all mbufs are back. */
void distributor_lay(struct distributor *d, uint32_t index, const uint8_t *bytes, uint16_t len, uint32_t tag)
{
	if (index == 0) {
		memcpy(d->ready, d->home, sizeof(d->ready));
		d->at = d->back = 0;
	}
	struct rte_mbuf *m = d->ready[index];

	memcpy(rte_pktmbuf_mtod(m, void *), bytes, len);
	m->data_len = m->pkt_len = len;
	m->hash.usr = tag;
}

/* The distributing side's turn. Answers whether all packets of the lap were given and all mbufs are back. */
int distributor_give(struct distributor *d)
{
	uint32_t count = RTE_MIN((uint32_t)GIVEN, LAP - d->at);

	for (uint32_t next = d->at + count; next < LAP && next < d->at + 2 * count; next++)
		rte_prefetch0(d->ready[next]);
	/* Of no packets: it passes on what waits, and takes what is returned. */
	d->at += rte_distributor_process(d->rte, d->ready + d->at, count);
	d->back += rte_distributor_returned_pkts(d->rte, d->home + d->back, LAP - d->back);
	return d->back == LAP;
}

/*
 * The worker's turn: returns what it holds and waits for the next line; answers how many packets it was. Once it
 * has seen the whole lap, it only returns what it holds, and is no longer waited for.
 */
uint32_t distributor_look(struct distributor *d, uint64_t *sum)
{
	if (d->seen == LAP) {
		rte_distributor_return_pkt(d->rte, WORKER, d->held, d->holds);
		d->seen = d->holds = 0;
		return 0;
	}
	uint32_t count = rte_distributor_get_pkt(d->rte, WORKER, d->held, d->held, d->holds);

	for (uint32_t i = 0; i < count; i++)
		rte_prefetch0(d->held[i]);
	for (uint32_t i = 0; i < count && i < AHEAD; i++)
		rte_prefetch0(rte_pktmbuf_mtod(d->held[i], void *));
	for (uint32_t i = 0; i < count; i++) {
		uint64_t first;

		if (i + AHEAD < count)
			rte_prefetch0(rte_pktmbuf_mtod(d->held[i + AHEAD], void *));
		memcpy(&first, rte_pktmbuf_mtod(d->held[i], void *), sizeof(first));
		*sum ^= d->held[i]->hash.usr ^ first;
	}
	d->holds = count;
	d->seen += count;
	return count;
}
