/* Counts the packets and bytes of a ring, until the yard ends: count NAME/RING [spin|yield|sleep] */
#include <flowyard.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct flowyard_view packets[64];
    unsigned long long seen = 0, bytes = 0;
    int how = FLOWYARD_SLEEP, count;
    flowyard_ring *ring = flowyard_attach(argc > 1 ? argv[1] : "yard/0", NULL);

    if (!ring) {
        fprintf(stderr, "count: %s\n", flowyard_error());
        return 1;
    }
    if (argc > 2)
        how = !strcmp(argv[2], "spin") ? FLOWYARD_SPIN : !strcmp(argv[2], "yield") ? FLOWYARD_YIELD : how;
    while (flowyard_wait(ring, how, -1) != FLOWYARD_ENDED) {
        while ((count = flowyard_take(ring, packets, 64)) > 0) {
            seen += count;
            for (int i = 0; i < count; i++)
                bytes += packets[i].total;
        }
    }
    printf("%llu packets, %llu bytes\n", seen, bytes);
    count = flowyard_end(ring) == FLOWYARD_IN_ORDER ? 0 : 2; /* 2: the yard was killed */
    flowyard_detach(ring);
    return count;
}
