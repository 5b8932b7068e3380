/*
 * A plain parser, for just the carriers that the packets have: VLAN, QinQ, MPLS with and without a
 * pseudo-wire, PPPoE, IP in IP, GRE, GTP-U and VXLAN. Then CRC-32C over the innermost ends, sorted.
 *
 * Every read is within the packet, every packet ends at some depth. It knows no policy, no reasons, no
 * fragments and no errors about other packets: a packet without ports is hashed by its addresses.
 */
#include "peers.h"

/* IP headers that are looked at, one in the other. */
#define DEPTH 4

enum layer { ETHERNET, ETHERTYPE, MPLS, PPPOE, IP, IPV4, IPV6, PROTOCOL, GRE, UDP, GTP, VXLAN, DONE };

static inline enum layer after_ethertype(uint16_t type)
{
	switch (type) {
	case 0x0800:
		return IPV4;
	case 0x86dd:
		return IPV6;
	case 0x8864:
		return PPPOE;
	case 0x8847:
	case 0x8848:
		return MPLS;
	case 0x6558:
		return ETHERNET;
	case 0x8100:
	case 0x88a8:
	case 0x9100:
		return ETHERTYPE;
	default:
		return DONE;
	}
}

/* The innermost ends; false if there are none. `at` is what was not looked at yet. */
static inline int find_ends(const uint8_t *at, const uint8_t *end, struct ends *ends)
{
	enum layer next = ETHERNET;
	uint8_t protocol = 0;
	int depth = 0;

/* Leaves with what was found so far if fewer bytes are left. */
#define NEED(bytes)                           \
	do {                                  \
		if (end - at < (bytes))       \
			return depth > 0;     \
	} while (0)

	for (;;) {
		switch (next) {
		case ETHERNET:
			NEED(14);
			next = after_ethertype(be16(at + 12));
			at += 14;
			break;
		case ETHERTYPE: /* behind a VLAN tag */
			NEED(4);
			next = after_ethertype(be16(at + 2));
			at += 4;
			break;
		case PPPOE: {
			NEED(8);
			uint16_t type = be16(at + 6);

			next = type == 0x0021 ? IPV4 : type == 0x0057 ? IPV6 : DONE;
			at += 8;
			break;
		}
		case MPLS: {
			int bottom;

			do {
				NEED(4);
				bottom = at[2] & 1;
				at += 4;
			} while (!bottom);
			NEED(4);
			next = IP;
			if (at[0] >> 4 == 0) { /* a control word, then Ethernet */
				at += 4;
				next = ETHERNET;
			}
			break;
		}
		case IP:
			NEED(1);
			next = at[0] >> 4 == 4 ? IPV4 : at[0] >> 4 == 6 ? IPV6 : DONE;
			break;
		case IPV4: {
			NEED(20);
			int len = (at[0] & 15) * 4;

			if (at[0] >> 4 != 4 || len < 20)
				return depth > 0;
			NEED(len);
			*ends = (struct ends){ at + 12, at + 16, 0, 0, at[9], 0 };
			protocol = at[9];
			next = be16(at + 6) & 0x3fff ? DONE : PROTOCOL; /* a fragment has no more to show */
			at += len;
			depth++;
			break;
		}
		case IPV6:
			NEED(40);
			if (at[0] >> 4 != 6)
				return depth > 0;
			*ends = (struct ends){ at + 8, at + 24, 0, 0, at[6], 1 };
			protocol = at[6];
			next = PROTOCOL;
			at += 40;
			depth++;
			break;
		case PROTOCOL:
			switch (protocol) {
			case 6:
			case 132:
				NEED(4);
				ends->sport = be16(at);
				ends->dport = be16(at + 2);
				return 1;
			case 17:
				next = UDP;
				break;
			case 47:
				next = depth < DEPTH ? GRE : DONE;
				break;
			case 4:
				next = depth < DEPTH ? IPV4 : DONE;
				break;
			case 41:
				next = depth < DEPTH ? IPV6 : DONE;
				break;
			case 0:
			case 43:
			case 60: /* options: type of the next header, length in units of 8 bytes beyond the first */
				NEED(8);
				int len = 8 + at[1] * 8;

				NEED(len);
				protocol = ends->protocol = at[0];
				at += len;
				break;
			default:
				return 1;
			}
			break;
		case GRE: {
			NEED(4);
			int len = 4 + (at[0] & 0x80 ? 4 : 0) + (at[0] & 0x20 ? 4 : 0) + (at[0] & 0x10 ? 4 : 0);

			if (at[1] & 7) /* another version */
				return 1;
			NEED(len);
			next = after_ethertype(be16(at + 2));
			at += len;
			break;
		}
		case UDP:
			NEED(8);
			ends->sport = be16(at);
			ends->dport = be16(at + 2);
			if (depth == DEPTH || (ends->dport != 2152 && ends->dport != 4789))
				return 1;
			next = ends->dport == 2152 ? GTP : VXLAN;
			at += 8;
			break;
		case GTP: {
			NEED(8);
			uint8_t flags = at[0];

			if (flags >> 4 != 3 || at[1] != 255) /* not version 1 with a user's packet */
				return 1;
			at += 8;
			if (flags & 7) { /* sequence and next extension */
				NEED(4);
				uint8_t extension = flags & 4 ? at[3] : 0;

				at += 4;
				while (extension) { /* length in units of 4 bytes first, the next one's type last */
					NEED(4);
					int len = at[0] * 4;

					if (len == 0)
						return 1;
					NEED(len);
					extension = at[len - 1];
					at += len;
				}
			}
			next = IP;
			break;
		}
		case VXLAN:
			NEED(8);
			if (!(at[0] & 8)) /* no network identifier */
				return 1;
			next = ETHERNET;
			at += 8;
			break;
		case DONE:
			return depth > 0;
		}
	}
#undef NEED
}

static inline uint32_t crc_of(const struct packet *packet)
{
	struct ends ends;

	return find_ends(packet->data, packet->data + packet->len, &ends) ? sorted_crc(&ends) : 0;
}

static inline void fetch(const struct packet *packet)
{
	rte_prefetch0(packet->data);
}

void plain_crc(const struct packet *packets, uint32_t count, const uint16_t *table, uint32_t *hashes, uint16_t *rings)
{
	FOR_BURST(packets, count, table, hashes, rings, fetch, crc_of);
}
