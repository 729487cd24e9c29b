/* What the three programs share: a loop over epoll, sockets on loopback, and the end of a head. */

#ifndef LOOP_H
#define LOOP_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256

/* A WebSocket message of 1 KiB as a client sends it, under the mask 0, and as a server does. */
#define MESSAGE 1024
#define FROM_CLIENT (8 + MESSAGE)
#define FROM_SERVER (4 + MESSAGE)
static const unsigned char CLIENT_FRAME[8] = {0x82, 0xfe, 0x04, 0x00, 0, 0, 0, 0};
static const unsigned char SERVER_FRAME[4] = {0x82, 0x7e, 0x04, 0x00};

static inline void die(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fprintf(stderr, errno ? ": %s\n" : "\n", strerror(errno));
    exit(1);
}

static inline void *allocate(size_t size)
{
    void *block = calloc(1, size);
    if (!block)
        die("no memory");
    return block;
}

static inline struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void set(int fd, int level, int option)
{
    int on = 1;
    if (setsockopt(fd, level, option, &on, sizeof on))
        die("setsockopt");
}

static inline int listen_on(int port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        die("socket");
    set(fd, SOL_SOCKET, SO_REUSEADDR);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("listen on port %d", port);
    return fd;
}

/* Connects at once: on loopback the listener's queue answers. */
static inline int connect_to(int port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        die("socket");
    set(fd, IPPROTO_TCP, TCP_NODELAY);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect to port %d", port);
    return fd;
}

static inline void watch(int loop, int operation, int fd, unsigned events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(loop, operation, fd, &event))
        die("epoll_ctl");
}

static inline int would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* The bytes up to the end of a head, or 0 where it is not here yet. */
static inline size_t head_length(const char *input, size_t held)
{
    const char *end = memmem(input, held, "\r\n\r\n", 4);
    return end ? (size_t)(end - input) + 4 : 0;
}

/* The value of a field whose name is given in small letters with its colon; NULL: there is none. */
static inline const char *field(const char *head, size_t length, const char *name)
{
    size_t size = strlen(name);
    const char *end = head + length;
    for (const char *line = head; line && line + size < end;
         line = memchr(line, '\n', end - line), line = line ? line + 1 : NULL)
        if (!strncasecmp(line, name, size)) {
            line += size;
            while (*line == ' ')
                line++;
            return line;
        }
    return NULL;
}

#endif
