/* The least that a refusal can be: what has come is received unread, and a 503 is sent. `least_server FD`, of a socket
   that listens. One thread, one loop over epoll. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE = 256 };
static const char ANSWER[] =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: application/json\r\ncontent-length: 63\r\n\r\n"
    "{\"error\":\"overloaded\",\"message\":\"too many requests wait; wait\"}";

static void watch(int among, int fd) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(among, EPOLL_CTL_ADD, fd, &wanted);
}

int main(int count, char **words) {
    static char unread[1 << 16];
    int listener = count > 1 ? atoi(words[1]) : 0, among = epoll_create1(0), at_once = 1;
    struct epoll_event found[AT_ONCE];
    watch(among, listener);
    for (;;) {
        int many = epoll_wait(among, found, AT_ONCE, -1);
        for (int i = 0; i < many; i++) {
            int fd = found[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
                watch(among, fd);
            } else if (recv(fd, unread, sizeof unread, 0) <= 0) {
                close(fd);
            } else {
                send(fd, ANSWER, strlen(ANSWER), MSG_NOSIGNAL);
            }
        }
    }
}
