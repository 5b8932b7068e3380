/*
 * The hash of netmap's load balancer: Toeplitz with a key that repeats after 16 bits, so that both directions of
 * a conversation get one hash without being sorted. What a byte adds at each of four places stands in a table.
 *
 * Written anew after what apps/lb/pkt_hash.c of github.com/luigirizzo/netmap does (as of 2022; by Jamshed, Sommer
 * and Hall, International Computer Science Institute) when lb asks it: addresses and ports, seed 'B'. It sees
 * through one VLAN tag, IP in IP, and GRE. But for the length of an IPv4 header nothing is checked: no ends of
 * packets, versions or fragments. As there:
 *
 * - of IPv6 addresses the first four bytes count, and headers between IPv6 and TCP or UDP end it;
 * - GRE's flags are looked for in other bits than RFC 2890 has them, so what follows a key is misread;
 * - other packets have the hash of their Ethernet addresses, misread ones often 0.
 *
 * Added: an end after so many IP headers, one in the other.
 */
#include "peers.h"

/* IP headers that are looked at, one in the other. */
#define DEPTH 4
/* Twice the key. */
#define KEY 0x506d506dULL
/* Is added to ports. */
#define SEED 'B'
/* What stands for ports where there are none. */
#define NO_SPORT 0xfdff
#define NO_DPORT 0xfeff

/* What a byte adds, by its place in a word in network order. */
static uint32_t of_byte[256][4];

/* Toeplitz: each bit that is set adds the 32 bits of the key that begin at its place. */
__attribute__((constructor)) static void fill_table(void)
{
	for (unsigned int byte = 0; byte < 256; byte++)
		for (unsigned int bit = 0; bit < 32; bit++)
			if (byte & 0x80 >> bit % 8)
				of_byte[byte][bit / 8] ^= (uint32_t)((KEY << 32 | KEY) >> (32 - bit));
}

static inline uint32_t of_word(uint32_t word)
{
	return of_byte[word >> 24][0] ^ of_byte[word >> 16 & 255][1] ^ of_byte[word >> 8 & 255][2] ^
	       of_byte[word & 255][3];
}

static inline uint32_t of_ends(uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport)
{
	uint16_t from = sport + SEED, to = dport + SEED;

	return of_word(src) ^ of_word(dst) ^ of_word((uint32_t)from << 16 | to);
}

enum layer { ETHERNET, IPV4, IPV6, PROTOCOL, GRE };

static inline uint32_t lb_of(const struct packet *packet)
{
	const uint8_t *at = packet->data;
	enum layer next = ETHERNET;
	uint32_t src = 0, dst = 0;
	uint8_t protocol = 0;
	int depth = 0, v6 = 0;

	for (;;) {
		switch (next) {
		case ETHERNET: {
			const uint8_t *end = at + 12;
			uint16_t type = be16(end);

			if (type == 0x8100) {
				end += 4;
				type = be16(end);
			}
			if (type != 0x0800 && type != 0x86dd)
				return of_ends(rte_bswap32(be32(at + 8)), rte_bswap32(be32(at + 2)), NO_SPORT, NO_DPORT);
			next = type == 0x0800 ? IPV4 : IPV6;
			at = end + 2;
			break;
		}
		case IPV4: {
			unsigned int len = (at[0] & 15) * 4;

			if (len < 20 || len > be16(at + 2))
				return 0;
			src = be32(at + 12);
			dst = be32(at + 16);
			protocol = at[9];
			v6 = 0;
			next = PROTOCOL;
			at += len;
			break;
		}
		case IPV6:
			src = be32(at + 8);
			dst = be32(at + 24);
			protocol = at[6];
			v6 = 1;
			next = PROTOCOL;
			at += 40;
			break;
		case PROTOCOL:
			if (protocol == 6 || protocol == 17)
				return of_ends(src, dst, be16(at), be16(at + 2));
			if ((protocol != 4 && protocol != 47 && !(protocol == 41 && v6)) || ++depth == DEPTH)
				return of_ends(src, dst, NO_SPORT, NO_DPORT);
			next = protocol == 4 ? IPV4 : protocol == 47 ? GRE : IPV6;
			break;
		case GRE: {
			uint16_t type = be16(at + 2);

			if (type != 0x0800 && type != 0x86dd && type != 0x6558)
				return 0;
			next = type == 0x0800 ? IPV4 : type == 0x86dd ? IPV6 : ETHERNET;
			at += 4 + 2 * __builtin_popcount(at[0] & 15);
			break;
		}
		}
	}
}

static inline void fetch(const struct packet *packet)
{
	rte_prefetch0(packet->data);
}

void netmap_lb(const struct packet *packets, uint32_t count, const uint16_t *table, uint32_t *hashes, uint16_t *rings)
{
	FOR_BURST(packets, count, table, hashes, rings, fetch, lb_of);
}
