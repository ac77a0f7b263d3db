/* The last step into a sandbox, and its first process: a child of it gives up every right but those that it is told to keep,
 * says that the build starts, and becomes it. The first process has none, waits for whatever ends, and ends with the build.
 *
 * It is linked statically and started by its descriptor, so nothing of the environment is run, linked or read before the
 * rights are gone: what an environment has in place of a shell, a loader, a locale or a list of users gets none of them.
 *
 * Arguments: the user's number, the capabilities that stay (hexadecimal), the file mode mask (octal), the program and its
 * arguments. Whatever goes wrong ends it before the program starts, with a word for the daemon. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char STARTED[] = "artel:started\n";
/* What a shell answers when a program cannot be started. */
enum { CANNOT = 126 };

static void must(const char *what, long result) {
    if (result >= 0) return;
    dprintf(STDERR_FILENO, "entering the sandbox: %s: %s\n", what, strerror(errno));
    _exit(CANNOT);
}

static unsigned long number(const char *word, int base) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(word, &end, base);
    if (errno || end == word || *end) errno = EINVAL, must(word, -1);
    return value;
}

static void give_up(unsigned long user, uint64_t keep) {
    /* The kernel refuses the first number that is no capability. */
    for (int right = 0; prctl(PR_CAPBSET_READ, right, 0, 0, 0) >= 0; right++)
        if (!(keep >> right & 1)) must("bounding set", prctl(PR_CAPBSET_DROP, right, 0, 0, 0));
    must("ambient set", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    must("groups", setgroups(0, NULL));
    must("group", setresgid(user, user, user));
    must("user", setresuid(user, user, user));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct rights[2] = {{0}};
    for (int half = 0; user == 0 && half < 2; half++)
        rights[half].effective = rights[half].permitted = (uint32_t)(keep >> (32 * half));
    must("rights", syscall(SYS_capset, &header, rights));
    must("no new rights", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* An installation has this process's user: what cannot be dumped, nobody without a right of its own may trace or look into. */
static void stand_by(pid_t build) {
    must("descriptors", syscall(SYS_close_range, 0, ~0U, 0));
    for (;;) {
        int status;
        pid_t ended = wait(&status);
        if (ended == build) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        if (ended < 0 && errno != EINTR) _exit(CANNOT);
    }
}

int main(int count, char **words) {
    errno = EINVAL;
    if (count < 5) must("arguments", -1);
    must("dumps", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    pid_t build = fork();
    must("fork", build);
    if (build) give_up(0, 0), stand_by(build);
    unsigned long user = number(words[1], 10);
    give_up(user, number(words[2], 16));
    umask(number(words[3], 8));
    must("start", write(STDERR_FILENO, STARTED, sizeof STARTED - 1));
    /* From here on nothing reaches the daemon but the log. */
    must("output", dup2(STDOUT_FILENO, STDERR_FILENO));
    int nothing = open("/dev/null", O_RDONLY);
    must("/dev/null", nothing);
    must("input", dup2(nothing, STDIN_FILENO));
    must("descriptors", syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0));
    execvp(words[4], words + 4);
    must(words[4], -1);
}
