/* The lower bound: what no service can beat.

   A link with one of the bench's MACs gets its name, its address and IFF_UP, all in one message
   to the kernel and straight on the kernel's own event. No udev, no config, no state, no repair;
   the masquerade rules are there beforehand. */

#include "netlink.h"

#include <net/if.h>

static void configure(int fd, int ifindex, int n)
{
    static struct batch batch;
    char name[16];
    unsigned char address[4], broadcast[4];
    struct ifinfomsg link = {.ifi_index = ifindex};
    struct ifaddrmsg ifa = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = ifindex};

    host_name(n, name);
    ipv4(n, 1, address);
    ipv4(n, 255, broadcast);
    begin(&batch, RTM_NEWLINK, 0, &link, sizeof link);
    attribute(&batch, IFLA_IFNAME, name, strlen(name) + 1);
    end(&batch);
    begin(&batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &ifa, sizeof ifa);
    attribute(&batch, IFA_LOCAL, address, 4);
    attribute(&batch, IFA_ADDRESS, address, 4);
    attribute(&batch, IFA_BROADCAST, broadcast, 4);
    end(&batch);
    link.ifi_flags = link.ifi_change = IFF_UP;
    begin(&batch, RTM_NEWLINK, 0, &link, sizeof link);
    end(&batch);
    send_batch(fd, &batch);
}

static void look(int fd, struct nlmsghdr *message)
{
    struct ifinfomsg *link = NLMSG_DATA(message);
    int size = IFLA_PAYLOAD(message);
    unsigned char *mac = find(IFLA_RTA(link), size, IFLA_ADDRESS);
    char *name = find(IFLA_RTA(link), size, IFLA_IFNAME), wanted[16];

    if (message->nlmsg_type != RTM_NEWLINK || !mac || memcmp(mac, HOST_MAC, sizeof HOST_MAC))
        return;
    host_name(mac[5], wanted);
    if (name && strcmp(name, wanted))
        configure(fd, link->ifi_index, mac[5]);
}

int main(void)
{
    static _Alignas(NLMSG_ALIGNTO) char events[65536];
    int listening = open_rtnetlink(RTMGRP_LINK), acting = open_rtnetlink(0);
    struct batch dump = {0};
    struct ifinfomsg all = {0};

    begin(&dump, RTM_GETLINK, NLM_F_DUMP, &all, sizeof all);
    end(&dump);
    send_batch(listening, &dump);
    for (;;) {
        int size = recv(listening, events, sizeof events, 0);
        for (struct nlmsghdr *m = (void *)events; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size))
            look(acting, m);
    }
}
