/* Just enough rtnetlink for both programs: write messages one behind the other, send them as one. */

#ifndef NETLINK_H
#define NETLINK_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct batch {
    _Alignas(NLMSG_ALIGNTO) char bytes[2048];
    size_t length;
    int messages;
    struct nlmsghdr *current;
};

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline int open_rtnetlink(unsigned groups)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int plenty = 16 << 20;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0 || bind(fd, (void *)&address, sizeof address) < 0)
        die("rtnetlink");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &plenty, sizeof plenty);
    return fd;
}

static inline void begin(struct batch *batch, int type, int flags, const void *header, size_t size)
{
    struct nlmsghdr *message = (void *)(batch->bytes + batch->length);

    if (batch->length + NLMSG_SPACE(size) > sizeof batch->bytes)
        abort();
    memset(message, 0, NLMSG_SPACE(size));
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    message->nlmsg_len = NLMSG_LENGTH(size);
    memcpy(NLMSG_DATA(message), header, size);
    batch->current = message;
    batch->messages++;
}

static inline struct rtattr *attribute(struct batch *batch, int type, const void *value, size_t size)
{
    struct nlmsghdr *message = batch->current;
    struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));

    if ((char *)attribute + RTA_SPACE(size) > batch->bytes + sizeof batch->bytes)
        abort();
    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(attribute), value, size);
    message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_SPACE(size);
    return attribute;
}

/* What came since *nest* was opened belongs into it. */
static inline void end_nest(struct batch *batch, struct rtattr *nest)
{
    nest->rta_len = (char *)batch->current + batch->current->nlmsg_len - (char *)nest;
}

static inline void end(struct batch *batch)
{
    batch->length += NLMSG_ALIGN(batch->current->nlmsg_len);
}

static inline void send_batch(int fd, struct batch *batch)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

    if (sendto(fd, batch->bytes, batch->length, 0, (void *)&kernel, sizeof kernel) < 0)
        die("send to rtnetlink");
    batch->length = 0;
    batch->messages = 0;
}

/* Send a batch whose messages all ask for an acknowledgement; return the first error, or 0. */
static inline int transact(int fd, struct batch *batch)
{
    _Alignas(NLMSG_ALIGNTO) char answer[16384];
    int waiting = batch->messages, error = 0;

    send_batch(fd, batch);
    while (waiting > 0) {
        int size = recv(fd, answer, sizeof answer, 0);
        if (size < 0)
            die("receive from rtnetlink");
        for (struct nlmsghdr *m = (void *)answer; NLMSG_OK(m, size); m = NLMSG_NEXT(m, size)) {
            if (m->nlmsg_type != NLMSG_ERROR)
                continue;
            struct nlmsgerr *told = NLMSG_DATA(m);
            if (!error)
                error = -told->error;
            waiting--;
        }
    }
    return error;
}

/* Find an attribute among *size* bytes; NULL if there is none. */
static inline void *find(struct rtattr *first, int size, int type)
{
    for (struct rtattr *a = first; RTA_OK(a, size); a = RTA_NEXT(a, size))
        if (a->rta_type == type)
            return RTA_DATA(a);
    return NULL;
}

/* The bench's gadgets, numbered from 1; topology of tests/bench/gadgets.py. */

static const unsigned char HOST_MAC[5] = {0x00, 0x22, 0x82, 0xff, 0xff};

static inline void host_mac(int n, unsigned char mac[6])
{
    memcpy(mac, HOST_MAC, 5);
    mac[5] = n;
}

/* Host *last* of 10.0.(10+n).0/24. */
static inline void ipv4(int n, int last, unsigned char address[4])
{
    unsigned value = (10u << 24) + ((10u + n) << 8) + last;

    for (int i = 0; i < 4; i++)
        address[i] = value >> (24 - 8 * i);
}

static inline void host_name(int n, char name[16])
{
    snprintf(name, 16, "ethusb%d", n & 0xff);
}

#endif
