/* Shows tag and annotation of some packets of a ring: dump NAME/RING [PACKETS] */
#include <flowyard.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void show(flowyard_ring *ring, const struct flowyard_view *packet)
{
    const struct flowyard_tag *tag = packet->tag;
    const char *port = flowyard_port(ring, tag->port);

    printf("%" PRIu64 " ns from %s: %u of %u bytes in %u parts, hash %08x ring %u", tag->time_ns, port ? port : "?",
           packet->total, tag->wire_len, packet->further_count + 1, tag->hash, tag->ring);
    printf(", protocol %u at %u behind %u IP headers", tag->protocol, tag->inner_l4, tag->depth);
    if (tag->tunnel_kind != FLOWYARD_TUNNEL_NONE)
        printf(", tunnel %u id %u", tag->tunnel_kind, tag->tunnel_id);
    if (tag->vlan)
        printf(", vlan %u", tag->vlan & 0x0fffu);
    printf(", annotation");
    for (unsigned i = 0; i < packet->annotation_len; i++)
        printf(i % 8 ? "%02x" : " %02x", packet->annotation[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    struct flowyard_view packets[16];
    long left = argc > 2 ? atol(argv[2]) : 10;
    int count;
    flowyard_ring *ring = flowyard_attach(argc > 1 ? argv[1] : "yard/0", NULL);

    if (!ring) {
        fprintf(stderr, "dump: %s\n", flowyard_error());
        return 1;
    }
    while (left > 0 && flowyard_wait(ring, FLOWYARD_SLEEP, -1) == FLOWYARD_PACKETS) {
        count = flowyard_take(ring, packets, left < 16 ? (unsigned)left : 16);
        for (int i = 0; i < count; i++, left--)
            show(ring, &packets[i]);
    }
    flowyard_detach(ring);
    return 0;
}
