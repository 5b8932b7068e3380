/*
 * rte_ring with one producer and one consumer, in bursts of 32. Entries have 16 or 32 bytes.
 *
 * What an entry says is hidden from the compiler, one entry at a time, as in the loops of the others.
 */
#include <stdlib.h>

#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>

#include "peers.h"

static inline void hide(uint64_t *word)
{
	asm volatile("" : : "r"(word) : "memory");
}

/* A ring of `slots` places on plain memory; NULL if there is none. */
struct rte_ring *ring_new(uint32_t slots, uint32_t entry_bytes)
{
	ssize_t bytes = rte_ring_get_memsize_elem(entry_bytes, slots);
	struct rte_ring *ring = bytes < 0 ? NULL : aligned_alloc(RTE_CACHE_LINE_SIZE, bytes);

	if (ring && rte_ring_init(ring, "bench", slots, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
		free(ring);
		ring = NULL;
	}
	return ring;
}

void ring_free(struct rte_ring *ring)
{
	free(ring);
}

/* Entries `from` to `from + BURST`: words count up. */
static inline void fill(uint64_t *burst, uint64_t from, unsigned int words)
{
	for (unsigned int i = 0; i < BURST; i++) {
		uint64_t n = from + i;

		hide(&n);
		for (unsigned int word = 0; word < words; word++)
			burst[i * words + word] = n + word;
	}
}

static inline uint64_t sum_up(const uint64_t *burst, unsigned int count, unsigned int words)
{
	uint64_t total = 0;

	for (unsigned int i = 0; i < count; i++) {
		uint64_t sum = 0;

		for (unsigned int word = 0; word < words; word++)
			sum += burst[i * words + word];
		hide(&sum);
		total += sum;
	}
	return total;
}

static inline void send_all(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	uint64_t burst[BURST * words];

	for (uint64_t n = 0; n < count; n += BURST) {
		unsigned int sent = 0;

		fill(burst, n, words);
		while ((sent += rte_ring_sp_enqueue_burst_elem(ring, &burst[sent * words], 8 * words, BURST - sent,
							       NULL)) < BURST)
			rte_pause();
	}
}

static inline uint64_t take_all(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	uint64_t burst[BURST * words];
	uint64_t total = 0;

	for (uint64_t seen = 0; seen < count;) {
		unsigned int taken = rte_ring_sc_dequeue_burst_elem(ring, burst, 8 * words, BURST, NULL);

		if (taken == 0)
			rte_pause();
		total += sum_up(burst, taken, words);
		seen += taken;
	}
	return total;
}

static inline uint64_t by_turns(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	uint64_t burst[BURST * words];
	uint64_t total = 0;

	for (uint64_t n = 0; n < count; n += BURST) {
		fill(burst, n, words);
		rte_ring_sp_enqueue_burst_elem(ring, burst, 8 * words, BURST, NULL);
		unsigned int taken = rte_ring_sc_dequeue_burst_elem(ring, burst, 8 * words, BURST, NULL);

		total += sum_up(burst, taken, words);
	}
	return total;
}

/* Sends entries 0 to `count`, a multiple of BURST. */
void ring_send(struct rte_ring *ring, uint64_t count, uint32_t words)
{
	words == 2 ? send_all(ring, count, 2) : send_all(ring, count, 4);
}

/* Takes `count` entries; answers the sum of their words. */
uint64_t ring_take(struct rte_ring *ring, uint64_t count, uint32_t words)
{
	return words == 2 ? take_all(ring, count, 2) : take_all(ring, count, 4);
}

/* Both, a burst in and the burst out. */
uint64_t ring_by_turns(struct rte_ring *ring, uint64_t count, uint32_t words)
{
	return words == 2 ? by_turns(ring, count, 2) : by_turns(ring, count, 4);
}
