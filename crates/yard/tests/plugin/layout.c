/* Says where everything of the interface is, in lines that the test reads. */
#include <stdio.h>

#include <flowyard_plugin.h>

#define SIZE(type) printf("%s %zu\n", #type, sizeof(struct flowyard_##type))
#define AT(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct flowyard_##type, field))
#define IS(name) printf("%s %lld\n", #name, (long long)(FLOWYARD_##name))

int main(void)
{
    SIZE(tag);
    AT(tag, hash), AT(tag, ring), AT(tag, stop), AT(tag, depth), AT(tag, outer_l3), AT(tag, inner_l3);
    AT(tag, inner_l4), AT(tag, protocol), AT(tag, kind), AT(tag, tunnel_id), AT(tag, tunnel_kind);
    AT(tag, hash_version), AT(tag, vlan), AT(tag, user), AT(tag, time_ns), AT(tag, flags), AT(tag, wire_len);
    AT(tag, len), AT(tag, port), AT(tag, queue), AT(tag, card_hash), AT(tag, stripped_vlan), AT(tag, link);
    SIZE(place);
    AT(place, buffer), AT(place, region), AT(place, offset), AT(place, len);
    SIZE(batch);
    AT(batch, count), AT(batch, verdicts), AT(batch, tags), AT(batch, buffers), AT(batch, places), AT(batch, copies);
    AT(batch, buffer_bytes), AT(batch, buffer_count), AT(batch, place_bytes), AT(batch, annotation_bytes);
    AT(batch, decided), AT(batch, corrected), AT(batch, zero);
    SIZE(verdict);
    AT(verdict, kind), AT(verdict, zero), AT(verdict, ring), AT(verdict, value), AT(verdict, slice);
    AT(verdict, pull), AT(verdict, zero2);
    SIZE(host);
    AT(host, abi), AT(host, size), AT(host, rings), AT(host, annotation_bytes), AT(host, dispatcher);
    AT(host, dispatchers), AT(host, table_open), AT(host, table_get);
    SIZE(plugin);
    AT(plugin, abi), AT(plugin, size), AT(plugin, name), AT(plugin, state_version), AT(plugin, zero);
    AT(plugin, open), AT(plugin, close), AT(plugin, steer), AT(plugin, check), AT(plugin, control);
    AT(plugin, tick), AT(plugin, adopt), AT(plugin, counter);
    IS(PLUGIN_ABI), IS(BATCH), IS(COPY_BYTES), IS(NO_OFFSET);
    IS(CHECKSUM_PARTIAL), IS(CHECKSUM_VALID), IS(GSO), IS(VLAN_STRIPPED), IS(TRUNCATED), IS(HARDWARE_TIME);
    IS(CARD_HASH), IS(FRAGMENT_FALLBACK), IS(OUTGOING), IS(VLAN_SERVICE);
    IS(CLOCK_NONE), IS(CLOCK_REALTIME), IS(CLOCK_RECORDED), IS(CLOCK_HARDWARE), IS(CLOCK_GENERATED);
    IS(FRAGMENT_MASK), IS(FRAGMENT_NONE), IS(FRAGMENT_FIRST), IS(FRAGMENT_LATER), IS(INNER_IPV6), IS(ICMP_ERROR);
    IS(ICMP_QUOTE);
    IS(TUNNEL_NONE), IS(TUNNEL_IP), IS(TUNNEL_GRE), IS(TUNNEL_PPTP), IS(TUNNEL_GTP), IS(TUNNEL_VXLAN);
    IS(TUNNEL_PPPOE), IS(TUNNEL_MPLS), IS(TUNNEL_GENEVE), IS(TUNNEL_L2TP), IS(TUNNEL_OTHER);
    IS(BUILT_IN), IS(HASH), IS(RING), IS(DROP), IS(SHUNT), IS(EVERY_RING), IS(HOST);
    IS(FOUND), IS(ABSENT), IS(BUSY);
    return 0;
}
