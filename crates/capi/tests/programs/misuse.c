/* Everything that must not be done, on a yard named edge: each is refused in words, and nothing crashes. */
#include <flowyard.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static int wrong;

static void refused(const char *what, long long answer, const char *word)
{
    if (answer > 0 || !strstr(flowyard_error(), word)) {
        printf("%s: %lld, \"%s\" and not %s\n", what, answer, flowyard_error(), word);
        wrong = 1;
    }
}

static void all(flowyard_ring *ring, const char *word)
{
    struct flowyard_view packets[4];
    struct flowyard_info info = {.size = sizeof info};

    refused("take", flowyard_take(ring, packets, 4), word);
    refused("release", flowyard_release(ring), word);
    refused("wait", flowyard_wait(ring, FLOWYARD_SLEEP, 0), word);
    refused("fd", flowyard_fd(ring), word);
    refused("prepare", flowyard_prepare_to_wait(ring), word);
    refused("end", flowyard_end(ring), word);
    refused("about", flowyard_about(ring, &info), word);
    refused("port", flowyard_port(ring, 0) != NULL, word);
}

static void *wait_long(void *ring)
{
    /* Until it is detached; when the other thread is quicker it waits anew. */
    while (flowyard_wait(ring, FLOWYARD_SLEEP, 100000000) != FLOWYARD_ERROR || !strstr(flowyard_error(), "no ring"))
        ;
    return NULL;
}

int main(void)
{
    struct flowyard_options options = {.size = sizeof options};
    struct flowyard_info info = {.size = 3};
    struct flowyard_view packets[4];
    flowyard_ring *ring, *other;
    pthread_t thread;

    if (flowyard_abi_version() != FLOWYARD_ABI || *flowyard_error())
        return printf("version, or an error before any\n"), 1;
    all(NULL, "NULL");
    all((flowyard_ring *)&options, "no ring");
    flowyard_detach(NULL);
    flowyard_detach((flowyard_ring *)&options);
    refused("attach", flowyard_attach(NULL, NULL) != NULL, "NULL");
    refused("attach", flowyard_attach("edge", NULL) != NULL, "NAME/RING");
    refused("attach", flowyard_attach("\xff\xfe/0", NULL) != NULL, "UTF-8");
    refused("attach", flowyard_attach("nowhere/0", NULL) != NULL, "cannot reach");
    refused("attach", flowyard_attach("edge/99", NULL) != NULL, "there is none");
    options.size = 0;
    refused("attach", flowyard_attach("edge/0", &options) != NULL, "size");
    options.size = sizeof options;
    options.flags = 0x80;
    refused("attach", flowyard_attach("edge/0", &options) != NULL, "0x80");
    options.flags = 0;
    options.program = "misuse";
    ring = flowyard_attach("edge/0", &options);
    if (!ring)
        return printf("%s\n", flowyard_error()), 1;
    refused("twice", flowyard_attach("edge/0", NULL) != NULL, "misuse");
    refused("take", flowyard_take(ring, NULL, 4), "NULL");
    refused("wait", flowyard_wait(ring, 17, 0), "17");
    refused("about", flowyard_about(ring, NULL), "NULL");
    refused("about", flowyard_about(ring, &info), "size");
    refused("port", flowyard_port(ring, 1000) != NULL, "1000");
    if (flowyard_take(ring, NULL, 0) != 0 || flowyard_end(ring) != FLOWYARD_NOT_ENDED)
        return printf("nothing: %s\n", flowyard_error()), 1;

    /* Ring 1 of a yard that sends nothing there: a thread sleeps on it while another uses it. */
    other = flowyard_attach("edge/1", NULL);
    if (!other)
        return printf("%s\n", flowyard_error()), 1;
    pthread_create(&thread, NULL, wait_long, other);
    while (flowyard_take(other, packets, 4) >= 0)
        ;
    refused("two threads", -1, "another thread");
    flowyard_detach(other); /* while the thread sleeps, most likely: the ring goes when it wakes */
    pthread_join(thread, NULL);
    all(other, "no ring");

    flowyard_detach(ring);
    flowyard_detach(ring);
    all(ring, "no ring");
    ring = flowyard_attach("edge/0", NULL);
    if (!ring)
        return printf("%s\n", flowyard_error()), 1;
    puts(wrong ? "wrong" : "right"); /* and ends with a ring in its hand */
    return wrong;
}
