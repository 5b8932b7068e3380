/*
 * What DPDK has for it: rte_net_get_ptype() finds the headers, then CRC-32C over the sorted ends, or the
 * Toeplitz hash in software.
 *
 * It sees through VLAN tags, IP in IP and GRE. It does not look into PPPoE, GTP-U or VXLAN, nor behind
 * MPLS labels: what travels in those gets the hash of its carrier's flow, or none.
 */
#include "peers.h"

#include <rte_net.h>
#include <rte_thash.h>

/* Lays an mbuf over a packet, as a driver does on receiving it. */
void ptype_mbuf(struct packet *packet, uint8_t *buffer, uint32_t buffer_bytes)
{
	struct rte_mbuf *m = packet->mbuf;

	memset(m, 0, sizeof(*m));
	m->buf_addr = buffer;
	m->buf_len = buffer_bytes;
	m->data_off = packet->data - buffer;
	m->data_len = m->pkt_len = packet->len;
	m->nb_segs = 1;
	m->refcnt = 1;
}

/* The innermost ends that the packet type tells of; false if it tells of none. */
static inline int find_ends(const struct rte_mbuf *m, struct ends *ends)
{
	struct rte_net_hdr_lens lens;
	uint32_t type = rte_net_get_ptype(m, &lens, RTE_PTYPE_ALL_MASK);
	const uint8_t *l3 = rte_pktmbuf_mtod_offset(m, const uint8_t *, lens.l2_len);
	int v4 = RTE_ETH_IS_IPV4_HDR(type), v6 = RTE_ETH_IS_IPV6_HDR(type);
	uint32_t l4_type = type & RTE_PTYPE_L4_MASK;
	uint16_t l3_len = lens.l3_len;

	if (type & RTE_PTYPE_INNER_L3_MASK) {
		uint32_t inner = type & RTE_PTYPE_INNER_L3_MASK;

		l3 += lens.l3_len + lens.tunnel_len + ((type & RTE_PTYPE_INNER_L2_MASK) ? lens.inner_l2_len : 0);
		v6 = inner == RTE_PTYPE_INNER_L3_IPV6 || inner == RTE_PTYPE_INNER_L3_IPV6_EXT;
		v4 = !v6;
		l3_len = lens.inner_l3_len;
		l4_type = (type & RTE_PTYPE_INNER_L4_MASK) >> 16;
	}
	if (!v4 && !v6)
		return 0;
	ends->v6 = v6;
	ends->src = l3 + (v6 ? 8 : 12);
	ends->dst = ends->src + (v6 ? 16 : 4);
	ends->protocol = l3[v6 ? 6 : 9];
	ends->sport = ends->dport = 0;
	if (l4_type == RTE_PTYPE_L4_TCP || l4_type == RTE_PTYPE_L4_UDP || l4_type == RTE_PTYPE_L4_SCTP) {
		const uint8_t *l4 = l3 + l3_len;

		ends->sport = be16(l4);
		ends->dport = be16(l4 + 2);
	}
	return 1;
}

static inline uint32_t crc_of(const struct packet *packet)
{
	struct ends ends;

	return find_ends(packet->mbuf, &ends) ? sorted_crc(&ends) : 0;
}

/* The symmetric key of Woo and Park (2012), in the order of the processor. */
static const uint32_t symmetric_key[10] = {
	0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a,
	0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a, 0x6d5a6d5a,
};

static inline uint32_t softrss_of(const struct packet *packet)
{
	union rte_thash_tuple tuple;
	struct ends ends;
	const uint8_t *key = (const uint8_t *)symmetric_key;

	if (!find_ends(packet->mbuf, &ends))
		return 0;
	if (!ends.v6) {
		tuple.v4.src_addr = be32(ends.src);
		tuple.v4.dst_addr = be32(ends.dst);
		tuple.v4.sport = ends.sport;
		tuple.v4.dport = ends.dport;
		return rte_softrss_be((uint32_t *)&tuple, RTE_THASH_V4_L4_LEN, key);
	}
	/* The addresses lie behind the first 8 bytes of the header. */
	rte_thash_load_v6_addrs((const struct rte_ipv6_hdr *)(ends.src - 8), &tuple);
	tuple.v6.sport = ends.sport;
	tuple.v6.dport = ends.dport;
	return rte_softrss_be((uint32_t *)&tuple, RTE_THASH_V6_L4_LEN, key);
}

static inline void fetch(const struct packet *packet)
{
	rte_prefetch0(packet->mbuf);
	rte_prefetch0(packet->data);
}

void ptype_crc(const struct packet *packets, uint32_t count, const uint16_t *table, uint32_t *hashes, uint16_t *rings)
{
	FOR_BURST(packets, count, table, hashes, rings, fetch, crc_of);
}

void ptype_softrss(const struct packet *packets, uint32_t count, const uint16_t *table, uint32_t *hashes,
		   uint16_t *rings)
{
	FOR_BURST(packets, count, table, hashes, rings, fetch, softrss_of);
}
