/*
 * What the peers have in common: a burst of packets in, a hash and a ring for each out.
 *
 * Every packet lies in a buffer of its own, and its mbuf lies at the front of that buffer, as in a DPDK
 * mempool. Bursts have at most 32 packets. Both directions of a conversation get one hash.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_hash_crc.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#define BURST 32
/* How many packets ahead headers are fetched. */
#define AHEAD 4
/* Buckets of the indirection table, as cards have it. */
#define BUCKETS 128

/* A packet as the caller shows it. */
struct packet {
	uint8_t *data;
	uint64_t len;
	struct rte_mbuf *mbuf;
};

/* The ends of a conversation, as they are on the wire. Ports are 0 where there are none. */
struct ends {
	const uint8_t *src, *dst;
	uint16_t sport, dport;
	uint8_t protocol;
	uint8_t v6;
};

static inline uint16_t be16(const uint8_t *at)
{
	uint16_t word;

	memcpy(&word, at, sizeof(word));
	return rte_be_to_cpu_16(word);
}

static inline uint32_t be32(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, sizeof(word));
	return rte_be_to_cpu_32(word);
}

/* CRC-32C of both ends, the lower one first. */
static inline uint32_t sorted_crc(const struct ends *ends)
{
	if (!ends->v6) {
		uint64_t a = (uint64_t)be32(ends->src) << 16 | ends->sport;
		uint64_t b = (uint64_t)be32(ends->dst) << 16 | ends->dport;
		uint64_t low = RTE_MIN(a, b), high = RTE_MAX(a, b);

		return rte_hash_crc_8byte(high, rte_hash_crc_8byte(low, ends->protocol));
	}
	int order = memcmp(ends->src, ends->dst, 16);
	int turned = order > 0 || (order == 0 && ends->sport > ends->dport);
	uint32_t ports = turned ? (uint32_t)ends->dport << 16 | ends->sport : (uint32_t)ends->sport << 16 | ends->dport;
	uint64_t words[4];

	memcpy(words, turned ? ends->dst : ends->src, 16);
	memcpy(words + 2, turned ? ends->src : ends->dst, 16);
	uint32_t crc = rte_hash_crc_8byte(words[0], ends->protocol);

	crc = rte_hash_crc_8byte(words[1], crc);
	crc = rte_hash_crc_8byte(words[2], crc);
	crc = rte_hash_crc_8byte(words[3], crc);
	return rte_hash_crc_4byte(ports, crc);
}

/* Hash and ring of every packet of a burst; `hash_of` takes a packet. The next ones are fetched meanwhile. */
#define FOR_BURST(packets, count, table, hashes, rings, fetch, hash_of)              \
	do {                                                                         \
		for (unsigned int i = 0; i < (count) && i < AHEAD; i++)              \
			fetch(&(packets)[i]);                                        \
		for (unsigned int i = 0; i < (count); i++) {                         \
			if (i + AHEAD < (count))                                     \
				fetch(&(packets)[i + AHEAD]);                        \
			uint32_t hash = hash_of(&(packets)[i]);                      \
			(hashes)[i] = hash;                                          \
			(rings)[i] = (table)[hash % BUCKETS];                        \
		}                                                                    \
	} while (0)
