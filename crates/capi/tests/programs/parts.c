/* Packets of edge/0 that lie in several buffers: the byte at `at` of a packet of `len` is 31 at + len from byte 50 on. */
#include <flowyard.h>

#include <stdio.h>

int main(void)
{
    struct flowyard_view packets[8];
    unsigned seen = 0, several = 0;
    int count;
    flowyard_ring *ring = flowyard_attach("edge/0", NULL);

    if (!ring)
        return printf("%s\n", flowyard_error()), 1;
    while (flowyard_wait(ring, FLOWYARD_SLEEP, -1) == FLOWYARD_PACKETS) {
        count = flowyard_take(ring, packets, 8);
        for (int i = 0; i < count; i++, seen++) {
            struct flowyard_segment first = {packets[i].data, packets[i].len, 0};
            unsigned at = 0;

            for (unsigned part = 0; part <= packets[i].further_count; part++) {
                const struct flowyard_segment *segment = part ? &packets[i].further[part - 1] : &first;

                for (unsigned j = 0; j < segment->len; j++, at++)
                    if (at >= 50 && segment->data[j] != (uint8_t)(31 * at + packets[i].total))
                        return printf("packet %u is not whole at %u\n", seen, at), 1;
            }
            if (at != packets[i].total || !(packets[i].flags & FLOWYARD_SLOT_MORE) != !packets[i].further_count)
                return printf("packet %u has %u of %u bytes\n", seen, at, packets[i].total), 1;
            several += packets[i].further_count > 0;
        }
    }
    printf("%u packets, %u in several parts\n", seen, several);
    flowyard_detach(ring);
    return 0;
}
