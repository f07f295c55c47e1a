"""The system calls of Linux on x86-64 by number, and what each is to a folder: nothing, a change, or not known.

A call in none of the lists below is refused by the recorder, so that none can change a folder unseen. Numbers:
arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.17.
"""

from __future__ import annotations

from collections.abc import Mapping

_FROM_0 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl
dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate
getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown
umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod
uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall
munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages
getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl
tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
pkey_alloc pkey_free statx io_pgetevents rseq
"""
_FROM_424 = """
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd
landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
open_tree_attr file_getattr file_setattr
"""

NUMBERS: Mapping[str, int] = {
    name: number
    for start, names in ((0, _FROM_0), (424, _FROM_424))
    for number, name in enumerate(names.split(), start)
}
NAMES: Mapping[int, str] = {number: name for name, number in NUMBERS.items()}

BY_DESCRIPTOR: Mapping[str, int] = {
    **dict.fromkeys(("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "ftruncate", "fallocate"), 0),
    **dict.fromkeys(("fsync", "fdatasync", "sync_file_range", "syncfs", "fchmod", "fchown"), 0),
    **dict.fromkeys(("fsetxattr", "fremovexattr", "ioctl"), 0),
    **dict.fromkeys(("copy_file_range", "splice"), 2),
    "mmap": 4,
}
"""Calls that change or sync a file that is open already, and which argument is its descriptor."""

BY_PATH: Mapping[str, tuple[tuple[int | None, int], ...]] = {
    **dict.fromkeys(("open", "creat", "truncate", "mkdir", "mknod", "rmdir", "unlink", "chmod"), ((None, 0),)),
    **dict.fromkeys(("chown", "lchown", "utime", "utimes", "setxattr", "lsetxattr"), ((None, 0),)),
    **dict.fromkeys(("removexattr", "lremovexattr"), ((None, 0),)),
    **dict.fromkeys(("openat", "openat2", "mkdirat", "mknodat", "unlinkat", "fchmodat", "fchmodat2"), ((0, 1),)),
    **dict.fromkeys(("fchownat", "futimesat", "utimensat"), ((0, 1),)),
    **dict.fromkeys(("rename", "link"), ((None, 0), (None, 1))),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), ((0, 1), (2, 3))),
    "symlink": ((None, 1),),
    "symlinkat": ((1, 2),),
}
"""Calls that change what a name leads to: for each of its paths the arguments with the folder's descriptor, if any,
and with the text."""

READING_BY_DESCRIPTOR: Mapping[str, int] = dict.fromkeys(
    ("read", "pread64", "readv", "preadv", "preadv2", "close", "fstat", "lseek", "getdents64", "flock", "fstatfs"), 0
)
READING_BY_PATH: Mapping[str, tuple[tuple[int | None, int], ...]] = {
    **dict.fromkeys(("stat", "lstat", "access", "readlink", "statfs"), ((None, 0),)),
    **dict.fromkeys(("newfstatat", "statx", "readlinkat", "faccessat", "faccessat2"), ((0, 1),)),
}
"""Calls that change nothing and can fail: recorded where they are asked for."""

KINDS: Mapping[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "open": "open openat openat2 creat",
        "read": "read pread64 readv preadv preadv2 getdents64",
        "write": "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range splice",
        "fsync": "fsync fdatasync syncfs",
        "truncate": "truncate ftruncate",
        "rename": "rename renameat renameat2",
        "link": "link linkat",
        "unlink": "unlink unlinkat rmdir",
        "mkdir": "mkdir mkdirat",
        "symlink": "symlink symlinkat",
        "close": "close",
        "stat": "stat lstat fstat newfstatat statx access faccessat faccessat2",
    }.items()
}
"""Calls that do the same, by one name."""

_HARMLESS = """
read close stat fstat lstat poll lseek mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64
readv access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause
nanosleep getitimer alarm setitimer getpid socket connect accept sendto recvfrom sendmsg recvmsg shutdown
bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit wait4 kill
uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock getdents getcwd chdir fchdir readlink
umask gettimeofday getrlimit getrusage sysinfo times getuid syslog getgid setuid setgid geteuid getegid
getppid getpgrp setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid
setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
sigaltstack personality statfs fstatfs getpriority setpriority sched_setparam sched_getparam
sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
mlock munlock mlockall munlockall prctl arch_prctl setrlimit gettid readahead getxattr lgetxattr fgetxattr
listxattr llistxattr flistxattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area
io_destroy io_getevents io_cancel get_thread_area epoll_create getdents64 set_tid_address restart_syscall
semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_gettime
clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill mbind set_mempolicy get_mempolicy mq_open
mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid add_key request_key keyctl ioprio_set
ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages newfstatat readlinkat faccessat
pselect6 ppoll set_robust_list get_robust_list tee vmsplice move_pages epoll_pwait signalfd timerfd_create
eventfd timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1
preadv rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at
sendmmsg getcpu process_vm_readv kcmp sched_setattr sched_getattr getrandom memfd_create execveat membarrier
mlock2 preadv2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq pidfd_send_signal pidfd_open
clone3 close_range pidfd_getfd faccessat2 process_madvise epoll_pwait2 landlock_create_ruleset
landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node
cachestat map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr
lsm_set_self_attr lsm_list_modules mseal getxattrat listxattrat file_getattr
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Calls that change no file: processes, memory, sockets, clocks, locks, and all that only reads."""
