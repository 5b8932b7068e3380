/*
 * rte_ring with one producer and one consumer, in bursts of 32. Entries have 16 or 32 bytes. Bursts are copied
 * from and to an array, as most applications do it, or written and read in place.
 *
 * What an entry says is hidden from the compiler, one entry at a time, as in the loops of the others.
 */
#include <stdlib.h>

#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_ring_peek_zc.h>

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

/* `count` entries beginning with number `from`: words count up. */
static inline void fill(uint64_t *burst, uint64_t from, unsigned int count, unsigned int words)
{
	for (unsigned int i = 0; i < count; i++) {
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

		fill(burst, n, BURST, words);
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
		fill(burst, n, BURST, words);
		rte_ring_sp_enqueue_burst_elem(ring, burst, 8 * words, BURST, NULL);
		unsigned int taken = rte_ring_sc_dequeue_burst_elem(ring, burst, 8 * words, BURST, NULL);

		total += sum_up(burst, taken, words);
	}
	return total;
}

/* Up to `most` entries, in place, from number `from` on; answers how many there was room for. */
static inline unsigned int put(struct rte_ring *ring, uint64_t from, unsigned int most, unsigned int words)
{
	struct rte_ring_zc_data at;
	unsigned int count = rte_ring_enqueue_zc_burst_elem_start(ring, 8 * words, most, &at, NULL);

	if (count == 0)
		return 0;
	fill(at.ptr1, from, at.n1, words);
	if (count > at.n1)
		fill(at.ptr2, from + at.n1, count - at.n1, words);
	rte_ring_enqueue_zc_elem_finish(ring, count);
	return count;
}

/* A burst at most, in place; answers how many there were. */
static inline unsigned int get(struct rte_ring *ring, uint64_t *total, unsigned int words)
{
	struct rte_ring_zc_data at;
	unsigned int count = rte_ring_dequeue_zc_burst_elem_start(ring, 8 * words, BURST, &at, NULL);

	if (count == 0)
		return 0;
	*total += sum_up(at.ptr1, at.n1, words);
	if (count > at.n1)
		*total += sum_up(at.ptr2, count - at.n1, words);
	rte_ring_dequeue_zc_elem_finish(ring, count);
	return count;
}

static inline void send_all_in_place(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	for (uint64_t n = 0; n < count;) {
		unsigned int sent = put(ring, n, RTE_MIN(count - n, (uint64_t)BURST), words);

		if (sent == 0)
			rte_pause();
		n += sent;
	}
}

static inline uint64_t take_all_in_place(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	uint64_t total = 0;

	for (uint64_t seen = 0; seen < count;) {
		unsigned int taken = get(ring, &total, words);

		if (taken == 0)
			rte_pause();
		seen += taken;
	}
	return total;
}

static inline uint64_t by_turns_in_place(struct rte_ring *ring, uint64_t count, unsigned int words)
{
	uint64_t total = 0;

	for (uint64_t n = 0; n < count; n += BURST) {
		put(ring, n, BURST, words);
		get(ring, &total, words);
	}
	return total;
}

/* The loop for these entries. */
#define CHOOSE(loop)                                                                                         \
	(words == 2 ? in_place ? loop##_in_place(ring, count, 2) : loop(ring, count, 2)                      \
		    : in_place ? loop##_in_place(ring, count, 4) : loop(ring, count, 4))

/* Sends entries 0 to `count`, a multiple of BURST. */
void ring_send(struct rte_ring *ring, uint64_t count, uint32_t words, int in_place)
{
	CHOOSE(send_all);
}

/* Takes `count` entries; answers the sum of their words. */
uint64_t ring_take(struct rte_ring *ring, uint64_t count, uint32_t words, int in_place)
{
	return CHOOSE(take_all);
}

/* Both, a burst in and the burst out. */
uint64_t ring_by_turns(struct rte_ring *ring, uint64_t count, uint32_t words, int in_place)
{
	return CHOOSE(by_turns);
}
