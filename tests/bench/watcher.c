/* watcher HOST GUEST...: plug gadgets in, and watch from outside what becomes of them.

   HOST and GUEST are paths of network namespaces. Guest n (from 1) is the far end of gadget n's
   cable, a veth pair whose host end appears in HOST as usb%d with the MAC that a config knows.
   Nothing here is told by the measured program: a gadget's clock starts when the kernel's
   RTM_NEWLINK arrives, and stops when the guest's ping comes back from FAR_SIDE, which answers
   only packets that were masqueraded.

   Commands on standard input:
     plug COUNT TIMEOUT_MS   plug gadgets 1 to COUNT at once; return when all were answered. Prints
                             a line for each: n, then microseconds to its name, to its address, to
                             IFF_UP, to the answer; "-" for what did not happen. Then "."
     unplug                  pull them out; return when the kernel says they are gone. Prints "."

   Runs with real-time priority, or the measured program itself would delay the clock's start. */

#define _GNU_SOURCE
#include "netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#define MOST 250
#define FAR_SIDE 0xcb007109u /* 203.0.113.9 */
#define GUEST_IFINDEX 1000   /* chosen, so that one message can hold the link and its address */
#define PING_PERIOD_US 500   /* of one guest; more guests take turns, or pings were all there is */
#define LONGEST_PERIOD_US 10000

enum moment { NAMED, ADDRESSED, UP, ANSWERED, MOMENTS };

struct gadget {
    int n, rtnetlink, icmp, ifindex, gone;
    long seen_us, after_us[MOMENTS];
    char name[16];
    unsigned char mac[6];
};

static struct gadget gadgets[MOST];
static int plugged, host_netns, events_fd;
static int round_number;

static long now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int open_netns(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        die(path);
    return fd;
}

static void enter(int netns)
{
    if (setns(netns, CLONE_NEWNET) < 0)
        die("setns");
}

/* --- cables ---------------------------------------------------------------------------------- */

static void add_link(struct batch *batch, struct gadget *gadget)
{
    struct ifinfomsg guest = {.ifi_index = GUEST_IFINDEX, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct ifinfomsg host = {0};
    unsigned char mac[6];

    memcpy(mac, gadget->mac, sizeof mac);
    mac[4] = 0xfe;
    begin(batch, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &guest, sizeof guest);
    attribute(batch, IFLA_IFNAME, "usb0", 5);
    attribute(batch, IFLA_ADDRESS, mac, 6);
    struct rtattr *kind = attribute(batch, IFLA_LINKINFO, NULL, 0);
    attribute(batch, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *details = attribute(batch, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = attribute(batch, VETH_INFO_PEER, &host, sizeof host);
    attribute(batch, IFLA_IFNAME, "usb%d", 6);
    attribute(batch, IFLA_ADDRESS, gadget->mac, 6);
    attribute(batch, IFLA_NET_NS_FD, &host_netns, sizeof host_netns);
    end_nest(batch, peer);
    end_nest(batch, details);
    end_nest(batch, kind);
    end(batch);
}

/* The guest knows its gateway's MAC: an ARP request that is lost would cost a second. */
static void add_guest_network(struct batch *batch, struct gadget *gadget)
{
    int acked = NLM_F_ACK | NLM_F_CREATE, ifindex = GUEST_IFINDEX;
    unsigned char own[4], gateway[4];
    struct ifaddrmsg ifa = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = ifindex};
    struct rtmsg route = {.rtm_family = AF_INET,
                          .rtm_table = RT_TABLE_MAIN,
                          .rtm_protocol = RTPROT_STATIC,
                          .rtm_scope = RT_SCOPE_UNIVERSE,
                          .rtm_type = RTN_UNICAST};
    struct ndmsg neighbour = {
        .ndm_family = AF_INET, .ndm_ifindex = ifindex, .ndm_state = NUD_PERMANENT};

    ipv4(gadget->n, 2, own);
    ipv4(gadget->n, 1, gateway);
    begin(batch, RTM_NEWADDR, acked, &ifa, sizeof ifa);
    attribute(batch, IFA_LOCAL, own, 4);
    attribute(batch, IFA_ADDRESS, own, 4);
    end(batch);
    begin(batch, RTM_NEWROUTE, acked, &route, sizeof route);
    attribute(batch, RTA_GATEWAY, gateway, 4);
    attribute(batch, RTA_OIF, &ifindex, sizeof ifindex);
    end(batch);
    begin(batch, RTM_NEWNEIGH, acked | NLM_F_REPLACE, &neighbour, sizeof neighbour);
    attribute(batch, NDA_DST, gateway, 4);
    attribute(batch, NDA_LLADDR, gadget->mac, 6);
    end(batch);
}

static void plug(struct gadget *gadget)
{
    struct batch batch = {0};

    add_link(&batch, gadget);
    add_guest_network(&batch, gadget);
    errno = transact(gadget->rtnetlink, &batch);
    if (errno)
        die("plug");
}

static void *plug_all(void *nothing)
{
    for (int i = 0; i < plugged; i++)
        plug(&gadgets[i]);
    return nothing;
}

static void unplug(struct gadget *gadget)
{
    struct batch batch = {0};
    struct ifinfomsg link = {.ifi_index = GUEST_IFINDEX};

    begin(&batch, RTM_DELLINK, NLM_F_ACK, &link, sizeof link);
    end(&batch);
    errno = transact(gadget->rtnetlink, &batch);
    if (errno)
        die("unplug");
}

/* --- pings ----------------------------------------------------------------------------------- */

static unsigned short checksum(const void *bytes, size_t size)
{
    unsigned sum = 0;
    const unsigned short *word = bytes;

    for (; size > 1; size -= 2)
        sum += *word++;
    sum = (sum >> 16) + (sum & 0xffff);
    return ~(sum + (sum >> 16));
}

/* Each ping has an identifier of its own, so each is a flow of its own: a flow that starts before
   its masquerade rule would never be masqueraded. The payload tells the round. */
static void ping(struct gadget *gadget)
{
    static unsigned short identifier;
    struct {
        struct icmphdr header;
        int round_number;
    } packet = {.header = {.type = ICMP_ECHO}, .round_number = round_number};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(FAR_SIDE)};

    packet.header.un.echo.id = ++identifier;
    packet.header.checksum = checksum(&packet, sizeof packet);
    sendto(gadget->icmp, &packet, sizeof packet, MSG_DONTWAIT, (void *)&to, sizeof to);
}

static void read_answers(struct gadget *gadget)
{
    _Alignas(4) char packet[512];

    while (recv(gadget->icmp, packet, sizeof packet, MSG_DONTWAIT) > 0) {
        struct iphdr *ip = (void *)packet;
        struct icmphdr *icmp = (void *)(packet + ip->ihl * 4);
        int about;

        memcpy(&about, icmp + 1, sizeof about);
        if (icmp->type == ICMP_ECHOREPLY && ntohl(ip->saddr) == FAR_SIDE &&
            about == round_number && !gadget->after_us[ANSWERED])
            gadget->after_us[ANSWERED] = now_us() - gadget->seen_us;
    }
}

/* --- the kernel's events --------------------------------------------------------------------- */

static void note(struct gadget *gadget, enum moment moment, long at_us)
{
    if (gadget->after_us[moment])
        return;
    gadget->after_us[moment] = at_us - gadget->seen_us + 1; /* 0 means never */
    if (!gadget->after_us[ANSWERED])
        ping(gadget);
}

static struct gadget *by_ifindex(int ifindex)
{
    for (int i = 0; i < plugged; i++)
        if (gadgets[i].ifindex == ifindex)
            return &gadgets[i];
    return NULL;
}

static struct gadget *by_mac(const unsigned char *mac)
{
    for (int i = 0; mac && i < plugged; i++)
        if (!gadgets[i].ifindex && !memcmp(gadgets[i].mac, mac, 6))
            return &gadgets[i];
    return NULL;
}

static void link_event(struct nlmsghdr *message, long at_us)
{
    struct ifinfomsg *link = NLMSG_DATA(message);
    int size = IFLA_PAYLOAD(message);
    struct gadget *gadget = by_ifindex(link->ifi_index);

    if (message->nlmsg_type == RTM_DELLINK) {
        if (gadget)
            gadget->gone = 1;
        return;
    }
    if (!gadget) {
        gadget = by_mac(find(IFLA_RTA(link), size, IFLA_ADDRESS));
        if (!gadget)
            return;
        gadget->ifindex = link->ifi_index;
        gadget->seen_us = at_us;
    }
    char *name = find(IFLA_RTA(link), size, IFLA_IFNAME);
    if (name && !strcmp(name, gadget->name))
        note(gadget, NAMED, at_us);
    if (link->ifi_flags & IFF_UP)
        note(gadget, UP, at_us);
}

static void address_event(struct nlmsghdr *message, long at_us)
{
    struct ifaddrmsg *ifa = NLMSG_DATA(message);
    struct gadget *gadget = by_ifindex(ifa->ifa_index);
    unsigned char wanted[4], *address = find(IFA_RTA(ifa), IFA_PAYLOAD(message), IFA_LOCAL);

    if (!gadget || !address || ifa->ifa_family != AF_INET)
        return;
    ipv4(gadget->n, 1, wanted);
    if (!memcmp(address, wanted, 4))
        note(gadget, ADDRESSED, at_us);
}

static void read_events(void)
{
    static _Alignas(NLMSG_ALIGNTO) char events[1 << 17];
    int size;

    while ((size = recv(events_fd, events, sizeof events, MSG_DONTWAIT)) > 0) {
        long at_us = now_us();
        for (struct nlmsghdr *m = (void *)events; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size))
            if (m->nlmsg_type == RTM_NEWLINK || m->nlmsg_type == RTM_DELLINK)
                link_event(m, at_us);
            else if (m->nlmsg_type == RTM_NEWADDR)
                address_event(m, at_us);
    }
    if (size < 0 && errno == ENOBUFS)
        die("events of the kernel were lost");
}

/* --- rounds ---------------------------------------------------------------------------------- */

static int all_answered(void)
{
    for (int i = 0; i < plugged; i++)
        if (!gadgets[i].after_us[ANSWERED])
            return 0;
    return 1;
}

static int all_gone(void)
{
    for (int i = 0; i < plugged; i++)
        if (!gadgets[i].gone && gadgets[i].ifindex)
            return 0;
    return 1;
}

/* Wait for events or answers, until the kernel has something or *until_us*. */
static void wait_until(long until_us)
{
    static struct pollfd polled[MOST + 1];
    long left_us = until_us - now_us();
    struct timespec timeout = {0};

    if (left_us > 0)
        timeout = (struct timespec){left_us / 1000000, left_us % 1000000 * 1000};
    polled[0] = (struct pollfd){.fd = events_fd, .events = POLLIN};
    for (int i = 0; i < plugged; i++)
        polled[i + 1] = (struct pollfd){.fd = gadgets[i].icmp, .events = POLLIN};
    ppoll(polled, plugged + 1, &timeout, NULL);
    read_events();
    for (int i = 0; i < plugged; i++)
        if (polled[i + 1].revents)
            read_answers(&gadgets[i]);
}

static void ping_the_unanswered(void)
{
    for (int i = 0; i < plugged; i++)
        if (gadgets[i].ifindex && !gadgets[i].after_us[ANSWERED])
            ping(&gadgets[i]);
}

static void start_plugging(pthread_t *thread)
{
    struct sched_param plain = {0};
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &plain);
    if (pthread_create(thread, &attributes, plug_all, NULL))
        die("start a thread");
    pthread_attr_destroy(&attributes);
}

static void print_round(void)
{
    for (int i = 0; i < plugged; i++) {
        printf("%d", gadgets[i].n);
        for (int moment = 0; moment < MOMENTS; moment++)
            if (gadgets[i].after_us[moment])
                printf(" %ld", gadgets[i].after_us[moment]);
            else
                printf(" -");
        printf("\n");
    }
}

static void plug_round(int count, long timeout_ms)
{
    pthread_t thread;
    long period_us = PING_PERIOD_US * count, next_us, end_us;

    if (period_us > LONGEST_PERIOD_US)
        period_us = LONGEST_PERIOD_US;
    round_number++;
    plugged = count;
    for (int i = 0; i < count; i++) {
        gadgets[i].ifindex = gadgets[i].gone = 0;
        gadgets[i].seen_us = 0;
        memset(gadgets[i].after_us, 0, sizeof gadgets[i].after_us);
    }
    read_events();
    next_us = now_us();
    end_us = next_us + timeout_ms * 1000;
    start_plugging(&thread);
    while (!all_answered() && now_us() < end_us) {
        if (now_us() >= next_us) {
            ping_the_unanswered();
            next_us = now_us() + period_us;
        }
        wait_until(next_us);
    }
    pthread_join(thread, NULL);
    read_events();
    print_round();
}

static void unplug_round(void)
{
    long end_us = now_us() + 30 * 1000000L;

    for (int i = 0; i < plugged; i++) {
        unplug(&gadgets[i]);
        read_events();
    }
    while (!all_gone() && now_us() < end_us)
        wait_until(end_us);
    plugged = 0;
}

static void prepare(int i, const char *path)
{
    struct gadget *gadget = &gadgets[i];
    int guest = open_netns(path);

    gadget->n = i + 1;
    host_mac(gadget->n, gadget->mac);
    host_name(gadget->n, gadget->name);
    enter(guest);
    gadget->rtnetlink = open_rtnetlink(0);
    gadget->icmp = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (gadget->icmp < 0)
        die("open a raw socket");
    close(guest);
}

int main(int count, char **arguments)
{
    struct sched_param least = {.sched_priority = 1};
    int guests = count - 2, wanted;
    long timeout_ms;
    char command[64];

    if (guests < 1 || guests > MOST) {
        fprintf(stderr, "watcher: give the host's network namespace and 1 to %d guests'\n", MOST);
        return 2;
    }
    host_netns = open_netns(arguments[1]);
    enter(host_netns);
    events_fd = open_rtnetlink(RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    for (int i = 0; i < guests; i++)
        prepare(i, arguments[i + 2]);
    if (sched_setscheduler(0, SCHED_FIFO, &least) < 0)
        fprintf(stderr, "watcher: no real-time priority, times may be too short: %m\n");
    while (fgets(command, sizeof command, stdin)) {
        if (sscanf(command, "plug %d %ld", &wanted, &timeout_ms) == 2 && !plugged && wanted > 0 &&
            wanted <= guests)
            plug_round(wanted, timeout_ms);
        else if (!strcmp(command, "unplug\n"))
            unplug_round();
        else
            return 2;
        puts(".");
        fflush(stdout);
    }
    return 0;
}
