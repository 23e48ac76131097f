/*
 * users.pml - a second process touches the receiving direction (G14.2, fork), for spin 6.5
 *
 * The side's page, which all its processes map, records who uses a direction: nobody, one process, or MANY. The first touch
 * by a process (receive, wait or registration) exchanges the record; if it was somebody else's the record becomes MANY for
 * good, the gate is closed (OPEN and ON_RING clear, epoch raised, even if it was clear already), and only then does the
 * call go on. The opener looks at the record after it read the gate and before its compare-and-swap. So no gate opens over a
 * process whose waits the opener cannot see: its epoll sets, its list of open gates, its sleepers.
 *
 * Modelled: two processes of THREADS threads each; process 0 is the parent, in the record before the fork, its gate perhaps
 * open (-DCHILDREN: two children of a parent that never touched); receives, which always close the gate (G11); waits, which close and look
 * at what is on this process' list only; a sleeper count and a list per process that the other never reads (in truth blocking
 * receives are counted in the side's page as well: the model does without); the flag "I am in the record" that fork must
 * clear; two processes reading one ring; a sender with ring and TCP. A thread may stay away for ever between two calls.
 * -DDEATH: process 0 is killed at any moment, perhaps with its gate open, and the other one takes the record over (pan -E).
 * Not modelled: the order of the bytes (gate.pml), the page itself (MADV_WIPEONFORK), credentials, exec, pids that
 * come again (the record must name a process for good), several sets and entries that leave the list (sleepers.pml).
 *
 * Checks: a thread that enters the kernel leaves no open gate behind, nor a readable ring; no opening succeeds while
 * a thread is inside; nobody sleeps for good beside a readable ring or an open gate (monitor); MANY is final.
 */
#ifndef N
#define N 2		/* bytes the sender has */
#endif
#ifndef THREADS
#define THREADS 2
#endif

#define NOBODY	0
#define MANY	255

/* ---- memory that both ends map ---- */
bool g_open;
byte unread;		/* head - tail */
bool put_ok;		/* epoch unchanged since the sender loaded the gate */
byte tcp;		/* bytes the kernel has for Y */

/* ---- the side's page ---- */
byte users = NOBODY;
bool olock;
bool open_ok;		/* epoch unchanged since the holder of olock loaded the gate */

/* ---- each process' own ---- */
byte sleepers[2];
bool listed[2];
bool recorded[2];	/* this process need not look at the record again */

/* ---- ghosts ---- */
byte inside[2];		/* threads in the kernel that found nothing before */
bool dead;		/* process 0 was killed */
byte gone[2];
bool was_many;

#define INSIDE	(inside[1] + (dead -> 0 : inside[0]))
#define AWAY	(gone[1] + (dead -> THREADS : gone[0]))
#define KILLED	(dead && _pid % 2 == 0)		/* init starts the threads of process 0 at even _pid */

inline close_gate() {
	d_step { put_ok = 0; open_ok = 0; g_open = 0 }
}

proctype X()
{
	byte n;
	bool open;

	do
	:: n == N -> break
	:: n < N ->
		d_step { open = g_open; put_ok = 1; n++ };
		if
		:: atomic { open && g_open && put_ok -> unread++ }			/* the compare-and-swap */
		:: d_step { true -> put_ok = 0; if :: g_open -> open_ok = 0 :: else fi };	/* leave */
			tcp++
		fi
	od
}

/* before any receive or wait of a process that is not yet known */
inline touch(p) {
	if
	:: recorded[p]
	:: !recorded[p] ->
#ifdef M_RECORDED_EARLY
		recorded[p] = 1;
#endif
#ifdef M_CLOSE_FIRST
		if
		:: users != NOBODY && users != p + 1 -> close_gate()
		:: else
		fi;
#endif
#ifdef M_TOUCH_NO_CAS
		old = users;
		if
		:: old == NOBODY -> users = p + 1
		:: old != NOBODY && old != p + 1 -> users = MANY
		:: else
		fi;
#elif defined(M_NO_MARK)
		old = users;
#else
		d_step {
			old = users;
			if
			:: old == NOBODY -> users = p + 1
			:: old != NOBODY && old != p + 1 && old != MANY && dead -> users = p + 1	/* its user has ended */
#ifdef M_TAKEOVER_NO_CLOSE
				; old = NOBODY
#endif
			:: old != NOBODY && old != p + 1 && (old == MANY || !dead) -> users = MANY; was_many = 1
			:: else
			fi
		};
#endif
#if !defined(M_NO_CLOSE) && !defined(M_CLOSE_FIRST)
		if
#ifdef M_CLOSE_OPEN_ONLY
		:: old != NOBODY && old != p + 1 && g_open -> close_gate()
#else
		:: old != NOBODY && old != p + 1 -> close_gate()
#endif
		:: else
		fi;
#endif
#ifndef M_UNREAD_NOT_LISTED
		d_step { if :: unread > 0 -> listed[p] = 1 :: else fi };	/* a closed gate whose ring is not empty (G15) */
#endif
		d_step { recorded[p] = 1; old = 0 }
	fi
}

#ifdef DEATH
proctype thread(byte p) provided (!KILLED)
#else
proctype thread(byte p)
#endif
{
	byte old;
	bool nb, wait, see;

	do
	:: atomic { gone[p]++; break }			/* the program does something else for ever */
	:: true ->
		if
		:: nb = 0
		:: nb = 1
		:: wait = 1
		fi;
		touch(p);
again:
		if
		:: atomic { unread > 0 && (!wait || listed[p]) -> unread--; goto opening }
		:: unread == 0 || (wait && !listed[p])
		fi;
		sleepers[p]++;
		if
		:: wait && !listed[p]
#ifdef M_MANY_TRUSTED
		:: !wait && users == MANY		/* "whoever wrote that has closed the gate" */
		:: !wait && users != MANY -> close_gate()
#else
		:: !wait -> close_gate()
#endif
		:: wait && listed[p] -> close_gate()
		fi;
		if
		:: atomic { unread > 0 && (!wait || listed[p]) -> sleepers[p]-- }; goto again
		:: atomic { unread == 0 || (wait && !listed[p]) ->
			assert(!g_open);
			assert(unread == 0);
			inside[p]++ }
		fi;
		if
		:: atomic { tcp > 0 -> tcp--; inside[p]--; sleepers[p]-- }
		:: atomic { nb && tcp == 0 -> inside[p]--; sleepers[p]-- }	/* EAGAIN */
		:: atomic { !nb && tcp == 0 -> skip };
end_k:			atomic { tcp > 0 -> tcp--; inside[p]--; sleepers[p]-- }
		fi;
opening:
		if
		:: atomic { !olock -> olock = 1 };
			listed[p] = 1;
#ifdef M_USERS_FIRST
			see = (users == p + 1);
#endif
			open_ok = !g_open;
#ifdef M_NO_USERS
			see = 1;
#elif !defined(M_USERS_FIRST)
			see = (users == p + 1);
#endif
			if
			:: see && sleepers[p] == 0 ->
				d_step {			/* the compare-and-swap */
					if
					:: open_ok && !g_open ->
						assert(INSIDE == 0);
						g_open = 1; put_ok = 0
					:: else
					fi
				}
			:: else
			fi;
			atomic { olock = 0; open_ok = 0; see = 0 }
		:: true
		fi;
		atomic { nb = 0; wait = 0 }
	od
}

#ifdef DEATH
proctype killer() { dead = 1 }
#endif

proctype monitor()
{
end_m:	if
	:: atomic { INSIDE > 0 && INSIDE + AWAY == 2 * THREADS && tcp == 0 && (unread > 0 || g_open) -> assert(false) }
	:: atomic { was_many && !dead && users != MANY -> assert(false) }
	fi
}

init {
	byte i;

	atomic {
#ifndef CHILDREN
		users = 1; recorded[0] = 1; listed[0] = 1;
		g_open = 1;
#ifdef M_FLAG_INHERITED
		recorded[1] = 1;
#endif
#endif
		run X();
		i = 0; do :: i < THREADS -> run thread(0); run thread(1); i++ :: i == THREADS -> break od;
#ifdef DEATH
		run killer();
#endif
		run monitor();
		i = 0
	}
}
