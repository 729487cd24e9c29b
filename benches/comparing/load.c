/*
 * The clients of the cases that wrk and h2load do not know; it checks every answer.
 *
 *   load -p PORT -c CONNECTIONS -d SECONDS -t TARGET -h HOST -s STATUS -b BYTES [MODE]
 *
 * -s and -b are what each answer must have, else it counts as wrong. Without a mode each connection
 * asks again as soon as it has its answer. -r RATE asks that often a second in all, at times that do
 * not depend on the answers: latency counts from when a request was due, so a proxy that is late makes
 * the next ones late too, as it would for people. -w sends messages of 1 KiB over WebSockets and waits
 * for each to come back. -a APPS asks for one of so many hosts each time, by chance, a0000000.HOST and
 * up; with -e for each of them once, and then it ends. One line of JSON says what was found.
 */

#include "loop.h"

#include <limits.h>
#include <sys/prctl.h>
#include <time.h>

enum reading { NOTHING, A_HEAD, A_BODY, A_MESSAGE };

struct connection {
    int fd;
    enum reading reads;
    /* Over WebSockets: what is left of a message. */
    size_t left, held;
    long due;
    char input[16384];
};

static struct {
    int port, connections, is_websocket, each;
    long rate, apps, status, bytes;
    double seconds;
    const char *target, *host;
} asked = {.connections = 64, .seconds = 1, .target = "/", .host = "localhost", .status = 200};

static int loop;
static char request[2048];
static size_t request_size, label_at;
static long requests, wrong, received, sent_apps, late_count, late_room;
static unsigned *late;
static struct connection **idle;
static int idle_count, under_way;

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void render(void)
{
    const char *label = asked.apps ? "a0000000." : "";
    const char *more = asked.is_websocket
                           ? "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           : "";
    request_size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s%s\r\n%s\r\n",
                            asked.target, label, asked.host, more);
    if (request_size >= sizeof request)
        die("the request is too long");
    label_at = strstr(request, "Host: ") + strlen("Host: a") - request;
}

/* The next host, of fixed length so that every request is. */
static void name_app(void)
{
    static unsigned long chance = 0x9e3779b97f4a7c15;
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    unsigned long number = (asked.each ? (unsigned long)sent_apps++ : chance) % asked.apps;
    for (int digit = 6; digit >= 0; digit--, number /= 10)
        request[label_at + digit] = '0' + number % 10;
}

static void ask(struct connection *connection, long due)
{
    if (asked.each && sent_apps >= asked.apps)
        return;
    if (asked.apps)
        name_app();
    connection->due = due;
    connection->reads = A_HEAD;
    connection->held = 0;
    under_way++;
    if (send(connection->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
        die("a request was not taken");
}

static void say_message(struct connection *connection)
{
    static char message[FROM_CLIENT];
    memcpy(message, CLIENT_FRAME, sizeof CLIENT_FRAME);
    connection->left = FROM_SERVER;
    if (send(connection->fd, message, sizeof message, MSG_NOSIGNAL) != sizeof message)
        die("a message was not taken");
}

static struct connection *open_connection(void)
{
    struct connection *connection = allocate(sizeof *connection);
    connection->fd = connect_to(asked.port);
    watch(loop, EPOLL_CTL_ADD, connection->fd, EPOLLIN, connection);
    return connection;
}

static void note_latency(long due)
{
    if (late_count == late_room) {
        late_room = late_room ? 2 * late_room : 65536;
        late = realloc(late, late_room * sizeof *late);
        if (!late)
            die("no memory");
    }
    long taken = (now() - due) / 100;
    late[late_count++] = taken > UINT_MAX ? UINT_MAX : taken;
}

/* An answer is whole: what the connection does next. */
static void answered(struct connection *connection)
{
    requests++;
    under_way--;
    if (asked.rate) {
        note_latency(connection->due);
        connection->reads = NOTHING;
        idle[idle_count++] = connection;
    } else
        ask(connection, 0);
}

static void read_head(struct connection *connection)
{
    char *input = connection->input;
    ssize_t got = recv(connection->fd, input + connection->held,
                       sizeof connection->input - connection->held - 1, MSG_DONTWAIT);
    if (got <= 0) {
        if (got < 0 && would_block())
            return;
        die("the connection ended before an answer, %ld answers in", requests);
    }
    connection->held += got;
    size_t head = head_length(input, connection->held);
    if (!head)
        return;
    input[connection->held] = 0;
    long status = strtol(input + strlen("HTTP/1.1 "), NULL, 10);
    if (asked.is_websocket) {
        if (status != 101)
            die("no WebSocket, but:\n%s", input);
        connection->reads = A_MESSAGE;
        under_way--;
        return say_message(connection);
    }
    const char *length = field(input, head, "content-length:");
    long bytes = length ? strtol(length, NULL, 10) : -1;
    if (status != asked.status || bytes != asked.bytes) {
        if (!wrong++)
            fprintf(stderr, "not what each answer must be:\n%.*s", (int)head, input);
        /* Where an answer without a length ends is not known. */
        if (length == NULL)
            exit(1);
    }
    received += connection->held - head;
    connection->left = bytes - (connection->held - head);
    connection->reads = A_BODY;
    if (!connection->left)
        answered(connection);
}

static void read_on(struct connection *connection)
{
    if (connection->reads == A_HEAD)
        return read_head(connection);
    if (connection->reads == NOTHING)
        die("bytes that nobody asked for, or the end of a connection, %ld answers in", requests);
    /* The length alone is checked, so the bytes need not be copied: the generator shares its CPU
       with the backend and must be cheaper than what it loads. */
    int flags = MSG_DONTWAIT | (connection->reads == A_BODY ? MSG_TRUNC : 0);
    size_t room = connection->reads == A_BODY ? connection->left : sizeof connection->input;
    ssize_t got = recv(connection->fd, connection->input, room < connection->left ? room : connection->left, flags);
    if (got <= 0) {
        if (got < 0 && would_block())
            return;
        die("the connection ended within an answer, %ld answers in", requests);
    }
    if (connection->reads == A_MESSAGE && connection->left == FROM_SERVER &&
        memcmp(connection->input, SERVER_FRAME, sizeof SERVER_FRAME))
        wrong++;
    received += got;
    connection->left -= got;
    if (connection->left)
        return;
    if (connection->reads == A_BODY)
        return answered(connection);
    requests++;
    say_message(connection);
}

/* Sends what is due, as far as connections are free. Gives how long nothing will be. */
static long send_due(long *next, long until)
{
    long gap = 1000000000L / asked.rate, time = now();
    while (*next <= time && *next < until && idle_count) {
        ask(idle[--idle_count], *next);
        *next += gap;
    }
    return *next > time ? *next - time : 1000000;
}

static int by_size(const void *one, const void *other)
{
    unsigned a = *(const unsigned *)one, b = *(const unsigned *)other;
    return (a > b) - (a < b);
}

static double percentile(double share)
{
    return late_count ? late[(long)(share * (late_count - 1))] / 10.0 : 0;
}

static void report(double seconds)
{
    qsort(late, late_count, sizeof *late, by_size);
    printf("{\"requests\": %ld, \"bytes\": %ld, \"wrong\": %ld, \"seconds\": %.6f,"
           " \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f}\n",
           requests, received, wrong, seconds, percentile(.5), percentile(.9), percentile(.99), percentile(.999));
}

static void understand(int count, char **arguments)
{
    for (int option; (option = getopt(count, arguments, "p:c:d:t:h:s:b:r:wa:e")) != -1;)
        switch (option) {
        case 'p': asked.port = atoi(optarg); break;
        case 'c': asked.connections = atoi(optarg); break;
        case 'd': asked.seconds = atof(optarg); break;
        case 't': asked.target = optarg; break;
        case 'h': asked.host = optarg; break;
        case 's': asked.status = atol(optarg); break;
        case 'b': asked.bytes = atol(optarg); break;
        case 'r': asked.rate = atol(optarg); break;
        case 'w': asked.is_websocket = 1; break;
        case 'a': asked.apps = atol(optarg); break;
        case 'e': asked.each = 1; break;
        default: die("see the top of load.c for what it takes");
        }
    if (!asked.port || asked.connections < 1 || asked.rate < 0 || asked.apps < 0 || asked.apps > 10000000)
        die("see the top of load.c for what it takes");
}

int main(int count, char **arguments)
{
    understand(count, arguments);
    render();
    /* The kernel may be 50 µs late else, which is a third of a request's time here. */
    prctl(PR_SET_TIMERSLACK, 1000UL);
    loop = epoll_create1(0);
    idle = allocate(asked.connections * sizeof *idle);
    for (int at = 0; at < asked.connections; at++) {
        struct connection *connection = open_connection();
        if (asked.rate)
            idle[idle_count++] = connection;
        else
            ask(connection, 0);
    }
    struct epoll_event events[EVENTS];
    long begun = now(), next = begun, until = begun + (long)(asked.seconds * 1e9);
    for (;;) {
        long wait = until - now();
        if (asked.rate) {
            long gap = send_due(&next, until);
            wait = gap < wait ? gap : wait;
        }
        /* At a rate, what was asked in time is waited for: the slowest answers are the ones to know. */
        if (asked.each ? !under_way : now() >= until && !(asked.rate && under_way))
            break;
        if (asked.each || wait < 0)
            wait = 1000000;
        struct timespec timeout = {wait / 1000000000, wait % 1000000000};
        int ready = epoll_pwait2(loop, events, EVENTS, &timeout, NULL);
        for (int at = 0; at < ready; at++)
            read_on(events[at].data.ptr);
    }
    report((now() - begun) / 1e9);
    return wrong != 0;
}
