/*
 * The server behind the proxies, much cheaper than any of them: backend PORT
 *
 * GET /large is 10 MiB, sent from memory without a copy; every other GET is 1 KiB. A WebSocket gets
 * its messages of 1 KiB back. A POST is a question to the M3O API, and whatever app it asks for runs
 * here. It trusts those who ask: it is no server for anything else.
 */

#include "loop.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#define SMALL 1024
#define LARGE (10 << 20)

struct connection {
    int fd, is_websocket, is_last, waits_to_write;
    size_t held;
    const char *out;
    size_t out_left;
    off_t large_at;
    size_t large_left;
    char echo[FROM_SERVER];
    char input[16384];
};

static char small[2048], large_head[256], resolved[512], upgraded[512];
static int loop, large;

static void prepare(int port)
{
    char body[SMALL + 1], url[128];
    memset(body, 'm', SMALL);
    body[SMALL] = 0;
    const char *head = "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\n"
                       "Content-Type: %s\r\nContent-Length: %d\r\n\r\n";
    int length = snprintf(small, sizeof small, head, "text/plain", SMALL);
    strcpy(small + length, body);
    snprintf(large_head, sizeof large_head, head, "application/octet-stream", LARGE);
    snprintf(url, sizeof url, "{\"url\":\"http://127.0.0.1:%d\"}", port);
    length = snprintf(resolved, sizeof resolved, head, "application/json", (int)strlen(url));
    strcpy(resolved + length, url);
    /* The answer to the key that RFC 6455 takes as its example, and the load generator too. */
    strcpy(upgraded, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    large = memfd_create("large", 0);
    if (large < 0)
        die("memfd_create");
    for (int written = 0; written < LARGE; written += SMALL)
        if (write(large, body, SMALL) != SMALL)
            die("write to memory");
}

static void leave(struct connection *connection)
{
    close(connection->fd);
    free(connection);
}

/* Takes what is whole out of the input and says what the answer is. False: more must be read. */
static int take(struct connection *connection)
{
    char *input = connection->input;
    size_t whole;
    if (connection->is_websocket) {
        whole = FROM_CLIENT;
        if (connection->held < whole)
            return 0;
        memcpy(connection->echo, SERVER_FRAME, sizeof SERVER_FRAME);
        memcpy(connection->echo + sizeof SERVER_FRAME, input + sizeof CLIENT_FRAME, MESSAGE);
        connection->out = connection->echo;
        connection->out_left = FROM_SERVER;
    } else {
        whole = head_length(input, connection->held);
        if (!whole)
            return 0;
        if (!memcmp(input, "POST", 4)) {
            const char *length = field(input, whole, "content-length:");
            whole += length ? strtoul(length, NULL, 10) : 0;
            if (connection->held < whole)
                return 0;
            connection->out = resolved;
        } else if (!memcmp(input, "GET /large ", 11)) {
            connection->out = large_head;
            connection->large_at = 0;
            connection->large_left = LARGE;
        } else if (field(input, whole, "upgrade:")) {
            connection->out = upgraded;
            connection->is_websocket = 1;
        } else
            connection->out = small;
        connection->out_left = strlen(connection->out);
        const char *close = field(input, whole, "connection:");
        connection->is_last = close && !strncasecmp(close, "close", 5);
    }
    connection->held -= whole;
    memmove(input, input + whole, connection->held);
    return 1;
}

/* Whether all of the answer is out. -1: the connection is gone. */
static int answer(struct connection *connection)
{
    while (connection->out_left) {
        int flags = MSG_NOSIGNAL | (connection->large_left ? MSG_MORE : 0);
        ssize_t sent = send(connection->fd, connection->out, connection->out_left, flags);
        if (sent < 0)
            return would_block() ? 0 : -1;
        connection->out += sent;
        connection->out_left -= sent;
    }
    while (connection->large_left) {
        ssize_t sent = sendfile(connection->fd, large, &connection->large_at, connection->large_left);
        if (sent <= 0)
            return sent < 0 && would_block() ? 0 : -1;
        connection->large_left -= sent;
    }
    return connection->is_last ? -1 : 1;
}

static void serve(struct connection *connection)
{
    for (;;) {
        int done = answer(connection);
        if (done < 0)
            return leave(connection);
        if (done != !connection->waits_to_write) {
            connection->waits_to_write = !done;
            watch(loop, EPOLL_CTL_MOD, connection->fd, done ? EPOLLIN : EPOLLOUT, connection);
        }
        if (!done)
            return;
        if (take(connection))
            continue;
        size_t room = sizeof connection->input - connection->held;
        ssize_t got = recv(connection->fd, connection->input + connection->held, room, 0);
        if (got <= 0) {
            if (got == 0 || !would_block())
                leave(connection);
            return;
        }
        connection->held += got;
        /* Most reads bring all that there is: a second one would only hear that. */
        if (!take(connection))
            return;
    }
}

int main(int count, char **arguments)
{
    if (count != 2)
        die("usage: backend PORT");
    int port = atoi(arguments[1]);
    prepare(port);
    /* A peer that leaves is an error of the call that meets it, and no more. */
    signal(SIGPIPE, SIG_IGN);
    loop = epoll_create1(0);
    int listener = listen_on(port);
    watch(loop, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(loop, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            if (events[at].data.ptr) {
                serve(events[at].data.ptr);
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0)
                continue;
            struct connection *connection = allocate(sizeof *connection);
            connection->fd = fd;
            set(fd, IPPROTO_TCP, TCP_NODELAY);
            watch(loop, EPOLL_CTL_ADD, fd, EPOLLIN, connection);
        }
    }
}
