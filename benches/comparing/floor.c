/*
 * The floor: what the kernel alone takes to proxy, with next to nothing in between.
 *
 * floor PORT BACKEND-PORT: one thread over epoll, two reads and two writes a request, the fields of a
 * proxy pasted in unread. A client has a backend's connection for itself while it stays. It checks
 * nothing and has no limit or timeout, so it is no proxy; it says what no proxy can go below without
 * fewer system calls. In C, like the two programs beside it, because `cc` is on every machine that
 * builds the ingress and there is no library here whose cost could be taken for the kernel's.
 */

#include "loop.h"

#include <signal.h>

#define CHUNK (256 << 10)
#define FIELDS "Connection: keep-alive\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: blog.m3o.app\r\n" \
               "X-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\nVia: 1.1 floor\r\nCDN-Loop: floor\r\n" \
               "X-Request-Id: 0198a7c0-0000-7000-8000-000000000000\r\n\r\n"
#define CLOSE "Connection: close\r\n"

struct pair;
/* One of the two ends of a pair, as epoll gives it back. */
struct end {
    struct pair *pair;
    int fd;
};
struct pair {
    struct end client, backend;
    int is_raw, is_last, is_gone;
    /* An answer is under way, and how much of its body is still to come. */
    int waits, is_head_read;
    size_t left;
    char *unsent;
    size_t unsent_at, unsent_size;
    struct pair *next_gone;
};

static int loop, backend_port, idle[65536], idle_count;
static char input[CHUNK];
static struct pair *gone;

static void leave(struct pair *pair)
{
    if (pair->is_gone)
        return;
    pair->is_gone = 1;
    close(pair->client.fd);
    watch(loop, EPOLL_CTL_DEL, pair->backend.fd, 0, NULL);
    if (pair->waits || pair->is_raw || pair->unsent || idle_count == 65536)
        close(pair->backend.fd);
    else
        idle[idle_count++] = pair->backend.fd;
    /* Freed after the round: an event for its other end may be in it. */
    pair->next_gone = gone;
    gone = pair;
}

static void from_client(struct pair *pair)
{
    ssize_t got = recv(pair->client.fd, input, sizeof input - sizeof FIELDS - 64, 0);
    if (got <= 0) {
        if (got == 0 || !would_block())
            leave(pair);
        return;
    }
    size_t size = got;
    if (!pair->is_raw) {
        if (head_length(input, size) != size)
            return leave(pair);
        const char *close = field(input, size, "connection:");
        pair->is_last = close && !strncasecmp(close, "close", 5);
        pair->is_raw = field(input, size, "upgrade:") != NULL;
        pair->waits = 1;
        pair->is_head_read = 0;
        if (!pair->is_raw) {
            char *line = memchr(input, '\n', size);
            size = line + 1 - input;
            size += sprintf(input + size, "Host: 127.0.0.1:%d\r\n" FIELDS, backend_port);
        }
    }
    if (send(pair->backend.fd, input, size, MSG_NOSIGNAL) != (ssize_t)size)
        leave(pair);
}

static void stop_reading(struct pair *pair, const char *rest, size_t size)
{
    pair->unsent = allocate(size);
    memcpy(pair->unsent, rest, size);
    pair->unsent_at = 0;
    pair->unsent_size = size;
    watch(loop, EPOLL_CTL_MOD, pair->client.fd, EPOLLOUT, &pair->client);
    watch(loop, EPOLL_CTL_MOD, pair->backend.fd, 0, &pair->backend);
}

static void from_backend(struct pair *pair)
{
    ssize_t got = recv(pair->backend.fd, input, sizeof input - sizeof CLOSE, 0);
    if (got <= 0) {
        if (got == 0 || !would_block()) {
            /* It is not to be used again. */
            pair->waits = 1;
            leave(pair);
        }
        return;
    }
    if (!pair->is_raw) {
        size_t body = got;
        if (!pair->is_head_read) {
            size_t head = head_length(input, got);
            const char *length = field(input, head, "content-length:");
            if (!length)
                die("an answer without its length");
            pair->left = strtoul(length, NULL, 10);
            body -= head;
            pair->is_head_read = 1;
            if (pair->is_last) {
                char *second = (char *)memchr(input, '\n', head) + 1;
                memmove(second + strlen(CLOSE), second, input + got - second);
                memcpy(second, CLOSE, strlen(CLOSE));
                got += strlen(CLOSE);
            }
        }
        pair->left -= body;
        pair->waits = pair->left != 0;
    }
    ssize_t sent = send(pair->client.fd, input, got, MSG_NOSIGNAL);
    if (sent < 0 && !would_block())
        return leave(pair);
    if (sent < got)
        return stop_reading(pair, input + (sent > 0 ? sent : 0), got - (sent > 0 ? sent : 0));
    if (pair->is_last && !pair->waits)
        leave(pair);
}

static void to_client(struct pair *pair)
{
    ssize_t sent = send(pair->client.fd, pair->unsent + pair->unsent_at,
                        pair->unsent_size - pair->unsent_at, MSG_NOSIGNAL);
    if (sent < 0) {
        if (!would_block())
            leave(pair);
        return;
    }
    pair->unsent_at += sent;
    if (pair->unsent_at < pair->unsent_size)
        return;
    free(pair->unsent);
    pair->unsent = NULL;
    watch(loop, EPOLL_CTL_MOD, pair->client.fd, EPOLLIN, &pair->client);
    watch(loop, EPOLL_CTL_MOD, pair->backend.fd, EPOLLIN, &pair->backend);
    if (pair->is_last && !pair->waits)
        leave(pair);
}

static void welcome(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    set(fd, IPPROTO_TCP, TCP_NODELAY);
    struct pair *pair = allocate(sizeof *pair);
    pair->client = (struct end){pair, fd};
    pair->backend = (struct end){pair, idle_count ? idle[--idle_count] : connect_to(backend_port)};
    watch(loop, EPOLL_CTL_ADD, fd, EPOLLIN, &pair->client);
    watch(loop, EPOLL_CTL_ADD, pair->backend.fd, EPOLLIN, &pair->backend);
}

int main(int count, char **arguments)
{
    if (count != 3)
        die("usage: floor PORT BACKEND-PORT");
    backend_port = atoi(arguments[2]);
    /* A peer that leaves is an error of the call that meets it, and no more. */
    signal(SIGPIPE, SIG_IGN);
    loop = epoll_create1(0);
    int listener = listen_on(atoi(arguments[1]));
    watch(loop, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(loop, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            struct end *end = events[at].data.ptr;
            if (!end)
                welcome(listener);
            else if (end->pair->is_gone)
                continue;
            else if (end == &end->pair->backend)
                from_backend(end->pair);
            else if (end->pair->unsent)
                to_client(end->pair);
            else
                from_client(end->pair);
        }
        while (gone) {
            struct pair *next = gone->next_gone;
            free(gone->unsent);
            free(gone);
            gone = next;
        }
    }
}
