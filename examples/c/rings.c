/* Reads several rings in one thread that sleeps in poll(2), beside whatever else: rings NAME/RING... */
#include <flowyard.h>

#include <poll.h>
#include <stdio.h>

#define MOST 64

int main(int argc, char **argv)
{
    struct flowyard_view packets[64];
    flowyard_ring *rings[MOST];
    struct pollfd fds[MOST];
    unsigned long long seen[MOST] = {0};
    int count = argc - 1 < MOST ? argc - 1 : MOST, open = 0, taken;

    for (int i = 0; i < count; i++, open++) {
        rings[i] = flowyard_attach(argv[i + 1], NULL);
        if (!rings[i]) {
            fprintf(stderr, "rings: %s\n", flowyard_error());
            return 1;
        }
        fds[i].fd = flowyard_fd(rings[i]);
        fds[i].events = POLLIN;
    }
    while (open > 0) {
        int sleep = 1;

        for (int i = 0; i < count; i++) {
            if (fds[i].fd < 0)
                continue; /* ended: poll(2) passes over it */
            while ((taken = flowyard_take(rings[i], packets, 64)) > 0)
                seen[i] += taken;
            switch (flowyard_prepare_to_wait(rings[i])) {
            case FLOWYARD_NOTHING:
                break;
            case FLOWYARD_PACKETS:
                sleep = 0;
                break;
            default:
                printf("%s: %llu packets, ended %s\n", argv[i + 1], seen[i],
                       flowyard_end(rings[i]) == FLOWYARD_IN_ORDER ? "in order" : "without a word");
                fds[i].fd = -1;
                open--;
            }
        }
        if (open > 0 && sleep)
            poll(fds, count, -1);
    }
    for (int i = 0; i < count; i++)
        flowyard_detach(rings[i]);
    return 0;
}
