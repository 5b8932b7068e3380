/*
 * What programs do with libpcap, on rings 0 and 1 of a yard named edge: 0 has packets until the yard ends, 1 has
 * none. Prints the first thing that is not as pcap(3PCAP) has it.
 */
#include <pcap/pcap.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            printf("line %d: not %s: %s\n", __LINE__, #what, p ? pcap_geterr(p) : errbuf);                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static char errbuf[PCAP_ERRBUF_SIZE];
static pcap_t *p;
static int seen;

static void count_udp(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    struct pcap_stat stat;

    CHECK(user == (u_char *)&seen);
    CHECK(header->caplen <= 96 && header->caplen <= header->len);
    CHECK(data[12] != 8 || data[23] == 17); /* IPv4: UDP */
    CHECK(pcap_stats(p, &stat) == 0 && stat.ps_recv > 0);
    seen++;
}

static void stop_at_7(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    (void)user, (void)header, (void)data;
    if (++seen == 7)
        pcap_breakloop(p);
}

static void *stop_soon(void *idle)
{
    usleep(50000);
    pcap_breakloop(idle);
    return NULL;
}

static void devices(void)
{
    pcap_if_t *all, *one;
    int found = 0;

    CHECK(pcap_findalldevs(&all, errbuf) == 0);
    for (one = all; one; one = one->next)
        found += !strcmp(one->name, "flowyard:edge/0") && strstr(one->description, "edge");
    CHECK(found == 1);
    pcap_freealldevs(all);
}

static void before_activation(void)
{
    struct bpf_program program;
    int *list;

    CHECK(pcap_datalink(p) == PCAP_ERROR_NOT_ACTIVATED);
    CHECK(pcap_compile(p, &program, "udp", 1, PCAP_NETMASK_UNKNOWN) < 0);
    CHECK(pcap_dispatch(p, 1, stop_at_7, NULL) < 0 && strstr(pcap_geterr(p), "pcap_activate"));
    CHECK(pcap_set_snaplen(p, 96) == 0);
    CHECK(pcap_set_promisc(p, 1) == 0);
    CHECK(pcap_set_timeout(p, 100) == 0);
    CHECK(pcap_set_buffer_size(p, 1 << 20) == 0);
    CHECK(pcap_set_immediate_mode(p, 1) == 0);
    CHECK(pcap_can_set_rfmon(p) == 0);
    CHECK(pcap_list_tstamp_types(p, &list) == 1 && list[0] == PCAP_TSTAMP_HOST);
    pcap_free_tstamp_types(list);
    CHECK(pcap_set_tstamp_type(p, PCAP_TSTAMP_HOST) == 0);
    CHECK(pcap_set_tstamp_type(p, PCAP_TSTAMP_ADAPTER) == PCAP_WARNING_TSTAMP_TYPE_NOTSUP);
    CHECK(pcap_set_tstamp_precision(p, 77) == PCAP_ERROR_TSTAMP_PRECISION_NOTSUP);
    CHECK(pcap_set_tstamp_precision(p, PCAP_TSTAMP_PRECISION_NANO) == 0);
    CHECK(pcap_activate(p) == 0);
    CHECK(pcap_activate(p) == PCAP_ERROR_ACTIVATED);
    CHECK(pcap_set_snaplen(p, 200) == PCAP_ERROR_ACTIVATED);
}

static void about(void)
{
    int *list;

    CHECK(pcap_datalink(p) == DLT_EN10MB && pcap_datalink_ext(p) == 0);
    CHECK(pcap_list_datalinks(p, &list) == 1 && list[0] == DLT_EN10MB);
    pcap_free_datalinks(list);
    CHECK(pcap_set_datalink(p, DLT_EN10MB) == 0);
    CHECK(pcap_set_datalink(p, DLT_PPP) == -1 && strstr(pcap_geterr(p), "link type"));
    CHECK(pcap_snapshot(p) == 96);
    CHECK(pcap_get_tstamp_precision(p) == PCAP_TSTAMP_PRECISION_NANO);
    CHECK(pcap_major_version(p) >= 0 && !pcap_is_swapped(p) && pcap_file(p) == NULL && pcap_bufsize(p) > 0);
    CHECK(pcap_inject(p, "x", 1) == -1 && strstr(pcap_geterr(p), "cannot be sent"));
    CHECK(pcap_sendpacket(p, (const u_char *)"x", 1) == -1);
    CHECK(pcap_setdirection(p, PCAP_D_INOUT) == 0 && pcap_setdirection(p, 9) == -1);
    CHECK(pcap_get_required_select_timeout(p) == NULL);
    CHECK(pcap_next_ex(p, NULL, NULL) == -1 && pcap_stats(p, NULL) == -1 && pcap_setfilter(p, NULL) == -1);
    CHECK(pcap_dispatch(p, 1, NULL, NULL) == -1 && pcap_list_datalinks(p, NULL) == -1);
}

static void reading(void)
{
    struct bpf_program program;
    struct pcap_pkthdr *header, own;
    const u_char *data;

    CHECK(pcap_next_ex(p, &header, &data) == 1 && header->caplen > 0 && header->caplen <= 96 && data);
    CHECK(header->ts.tv_usec < 1000000000);
    CHECK((data = pcap_next(p, &own)) != NULL && own.caplen > 0);
    CHECK(pcap_compile(p, &program, "not a filter", 1, 0) == -1 && strlen(pcap_geterr(p)) > 0);
    CHECK(pcap_compile(p, &program, "udp", 1, PCAP_NETMASK_UNKNOWN) == 0);
    CHECK(pcap_setfilter(p, &program) == 0);
    pcap_freecode(&program);
    for (seen = 0; seen < 500;) {
        int before = seen, count = pcap_dispatch(p, 10, count_udp, (u_char *)&seen);

        CHECK(count >= 0 && count <= 10 && count == seen - before);
    }
    seen = 0;
    CHECK(pcap_loop(p, 20, count_udp, (u_char *)&seen) == 0 && seen == 20);
    seen = 0;
    CHECK(pcap_loop(p, -1, stop_at_7, NULL) == PCAP_ERROR_BREAK && seen == 7);
    seen = 0;
    CHECK(pcap_dispatch(p, 3, stop_at_7, NULL) > 0); /* it is forgotten */
    CHECK(pcap_compile(p, &program, "", 1, PCAP_NETMASK_UNKNOWN) == 0 && pcap_setfilter(p, &program) == 0);
    pcap_freecode(&program);
}

static void writing(const char *name)
{
    struct pcap_pkthdr *header;
    const u_char *data;
    pcap_dumper_t *dumper = pcap_dump_open(p, name);
    pcap_t *file, *ring = p;
    int count = 0, answer;

    CHECK(dumper);
    CHECK(pcap_loop(p, 25, pcap_dump, (u_char *)dumper) == 0);
    pcap_dump_close(dumper);
    CHECK(pcap_dump_open(p, "/no/such/folder") == NULL && strstr(pcap_geterr(p), "/no/such/folder"));
    file = p = pcap_open_offline_with_tstamp_precision(name, PCAP_TSTAMP_PRECISION_NANO, errbuf);
    CHECK(file && pcap_datalink(file) == DLT_EN10MB && pcap_snapshot(file) == 96);
    while ((answer = pcap_next_ex(file, &header, &data)) == 1)
        count++;
    CHECK(answer == PCAP_ERROR_BREAK && count == 25);
    pcap_close(file);
    p = ring;
}

static void selecting(void)
{
    int fd = pcap_get_selectable_fd(p), idle = 0;
    struct pcap_pkthdr *header;
    const u_char *data;

    CHECK(fd >= 0 && pcap_fileno(p) == fd);
    CHECK(pcap_getnonblock(p, errbuf) == 0 && pcap_setnonblock(p, 1, errbuf) == 0 && pcap_getnonblock(p, errbuf) == 1);
    for (seen = 0; seen < 2000;) {
        struct timeval limit = {.tv_sec = 30};
        fd_set set;
        int count;

        FD_ZERO(&set);
        FD_SET(fd, &set);
        CHECK(select(fd + 1, &set, NULL, NULL, &limit) == 1);
        count = pcap_dispatch(p, seen < 1000 ? 3 : -1, count_udp, (u_char *)&seen);
        CHECK(count >= 0);
        idle += count == 0;
    }
    CHECK(idle < 2000);
    do { /* one that stays while the descriptor is put in order */
        CHECK((idle = pcap_next_ex(p, &header, &data)) >= 0);
    } while (idle == 0);
    CHECK(data[12] != 8 || data[13] != 0 || data[14] >> 4 == 4);
    CHECK(pcap_setnonblock(p, 0, errbuf) == 0);
}

static void idle_ring(void)
{
    struct pcap_pkthdr *header;
    const u_char *data;
    pcap_t *busy = p, *idle = p = pcap_open_live("flowyard:edge/1", 65535, 1, 20, errbuf);
    pthread_t thread;
    struct timeval none = {0};
    fd_set set;

    CHECK(p && !*errbuf && pcap_snapshot(p) == 65535);
    CHECK(pcap_next_ex(p, &header, &data) == 0);
    CHECK(pcap_dispatch(p, -1, stop_at_7, NULL) == 0);
    CHECK(pcap_next(p, header) == NULL);
    pthread_create(&thread, NULL, stop_soon, idle);
    CHECK(pcap_loop(p, -1, stop_at_7, NULL) == PCAP_ERROR_BREAK);
    pthread_join(thread, NULL);
    FD_ZERO(&set);
    FD_SET(pcap_get_selectable_fd(p), &set);
    CHECK(select(pcap_get_selectable_fd(p) + 1, &set, NULL, NULL, &none) == 0);
    pcap_close(p);
    p = NULL;
    CHECK(pcap_open_live("flowyard:edge/9", 65535, 1, 20, errbuf) == NULL && strstr(errbuf, "there is none"));
    p = busy;
}

static void real_ones(void)
{
    struct bpf_program program;
    pcap_t *ring = p;
    unsigned net, mask;

    p = pcap_open_dead(DLT_RAW, 100);
    CHECK(p && pcap_datalink(p) == DLT_RAW && pcap_snapshot(p) == 100);
    CHECK(pcap_compile(p, &program, "tcp", 1, 0) == 0);
    pcap_freecode(&program);
    pcap_close(p);
    p = pcap_create("no-such-interface", errbuf);
    CHECK(p && pcap_activate(p) < 0);
    pcap_close(p);
    p = NULL;
    CHECK(strstr(pcap_lib_version(), "libpcap"));
    CHECK(pcap_lookupnet("flowyard:edge/0", &net, &mask, errbuf) == -1 && strstr(errbuf, "no network"));
    CHECK(pcap_create("flowyard:edge", errbuf) == NULL && strstr(errbuf, "NAME/RING"));
    p = ring;
}

int main(int argc, char **argv)
{
    (void)argc;
    devices();
    p = pcap_create("flowyard:edge/0", errbuf);
    CHECK(p);
    before_activation();
    about();
    reading();
    writing(argv[1]);
    idle_ring();
    real_ones();
    {
        struct bpf_program program;

        CHECK(pcap_compile(p, &program, "udp", 1, PCAP_NETMASK_UNKNOWN) == 0 && pcap_setfilter(p, &program) == 0);
        pcap_freecode(&program);
    }
    selecting();
    puts("until the end");
    fflush(stdout);
    CHECK(pcap_loop(p, -1, count_udp, (u_char *)&seen) == 0);
    CHECK(pcap_dispatch(p, -1, count_udp, (u_char *)&seen) == PCAP_ERROR_BREAK);
    CHECK(pcap_next(p, NULL) == NULL);
    pcap_close(p);
    puts("right");
    return 0;
}
