/* Writes annotations and packets of edge/0, and sees what it wrote; holds batches; asks what it may ask. */
#include <flowyard.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    struct flowyard_options options = {.size = sizeof options, .flags = FLOWYARD_WRITE, .program = "writer"};
    struct flowyard_info info = {.size = sizeof info};
    struct flowyard_view packets[200];
    unsigned long long seen = 0;
    int count, how = 0;
    flowyard_ring *ring = flowyard_attach("edge/0", &options);

    if (!ring || flowyard_about(ring, &info))
        return printf("%s\n", flowyard_error()), 1;
    printf("%s %s %u/%u %u %u %s\n", info.yard, info.group, info.ring, info.rings, info.annotation_bytes, info.write,
           flowyard_port(ring, 0));
    while (flowyard_wait(ring, how++ % 3, -1) == FLOWYARD_PACKETS) {
        count = flowyard_take(ring, packets, 200);
        for (int i = 0; i < count; i++) {
            struct flowyard_view *packet = &packets[i];

            if (!packet->writable || packet->annotation_len != 64 || packet->tag->hash != packet->hash ||
                packet->tag->len != packet->total || packet->len != packet->total || packet->further_count)
                return printf("packet %d is odd\n", i), 1;
            memset(packet->annotation, i, packet->annotation_len);
            memset(packet->data, i, packet->len);
        }
        for (int i = 0; i < count; i++)
            if (packets[i].annotation[63] != (uint8_t)i || packets[i].data[packets[i].len - 1] != (uint8_t)i)
                return printf("packet %d was written by another\n", i), 1;
        seen += count;
        if (seen % 2)
            flowyard_release(ring);
    }
    printf("%llu %d\n", seen, flowyard_end(ring));
    flowyard_detach(ring);
    return 0;
}
