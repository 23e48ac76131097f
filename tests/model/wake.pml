/*
 * wake.pml - arm, look, sleep: waiters beside one completion queue (A1's last clause, plan 4.2), for spin 6.5
 *
 * One completion queue per process, one channel (level-readable while an event lies in it), one eventfd per waiter. A notification is
 * armed once and raises one event, for a completion that comes LATER: what lies in the queue when it is armed raises nothing. Whoever
 * polls the queue (a drainer: a busy thread, or a waiter) gets everybody's completions: it stores what they mean, then
 * raises the eventfds of the registered waiters. A waiter registers, arms, polls again, looks at its own connection, sleeps.
 *
 * Modelled: two waiters, each for its own connection; a busy thread that polls at times; the poll's lock, which is only tried; completions that come at any
 * moment. -DSET: the two waiters sleep in one epoll set with one eventfd, each reports one connection at a time, whichever is ready;
 * an epoll set wakes one sleeper for one descriptor (a nested one too). M_..._BUFFERED: a store that is seen late.
 * Not modelled: several queues (each alone is this model), the daemon's socket, timeouts, connections with TCP bytes.
 *
 * Checks: when nothing moves any more nobody sleeps whose connection has something, nor in a set in which one has (monitor); pan -E.
 */
#ifndef N
#define N 2		/* completions for each connection */
#endif
#define BUSY	2

/* ---- the adapter ---- */
byte cq[2];		/* completions in the queue, by connection */
bool armed;
byte event;		/* events in the channel */

/* ---- the process ---- */
byte lock;		/* of the poll: 0, or 1 + owner */
byte ready[2];		/* known, not yet taken by the program */
bool registered[2];
bool efd[2];
#ifdef SET
#define EFD(i)	efd[0]
#define MINE	(ready[0] + ready[1] > 0)
#else
#define EFD(i)	efd[i]
#define MINE	(ready[me] > 0)
#endif

/* ---- ghosts ---- */
bool asleep[2];
bool told[2];		/* -DSET: the kernel has woken this sleeper */
byte gone;

proctype adapter(byte c)
{
	byte n;

	do
	:: atomic { n < N -> n++; cq[c]++; if :: armed -> armed = 0; event++ :: else fi }
	:: n == N -> break
	od
}

/* only those that are registered: a system call each */
inline wake_others(self) {
#ifndef M_NO_BROADCAST
#ifdef SET
	if :: registered[0] || registered[1] -> efd[0] = 1 :: else fi
#else
	if :: self != 0 && registered[0] -> efd[0] = 1 :: else fi;
	if :: self != 1 && registered[1] -> efd[1] = 1 :: else fi
#endif
#else
	skip
#endif
}

inline take_event() {
	if
	:: atomic { event > 0 -> event-- };
#ifndef M_NO_REARM
		armed = 1
#endif
	:: atomic { event == 0 }
	fi
}

/*
 * Under the try-lock: an event of the channel is taken, the queue armed again, then polled until it is empty; states, then the
 * eventfds of the others. found: something was there, or somebody else is at it.
 */
inline drain(self) {
	found = 0;
#ifdef M_EVENT_NO_LOCK
	take_event();
#endif
	if
	:: atomic { lock == 0 -> lock = self + 1 };
#if !defined(M_EVENT_NO_LOCK) && !defined(M_REARM_BARE)
		take_event();
#endif
		do
		:: atomic { cq[0] + cq[1] > 0 -> g0 = cq[0]; g1 = cq[1]; cq[0] = 0; cq[1] = 0; found = 1 };
#ifdef M_STORE_BUFFERED
			wake_others(self);
			atomic { ready[0] = ready[0] + g0; ready[1] = ready[1] + g1; g0 = 0; g1 = 0 }
#else
			atomic { ready[0] = ready[0] + g0; ready[1] = ready[1] + g1; g0 = 0; g1 = 0 };
			wake_others(self)
#endif
		:: atomic { cq[0] + cq[1] == 0 -> break }
		od;
#ifdef M_REARM_BARE
		take_event();
#endif
		lock = 0
	:: atomic { lock != 0 ->
#ifndef M_TRYLOCK_EMPTY
		found = 1
#endif
		}
	fi
}

proctype waiter(byte me)
{
	byte g0, g1, taken;
	bool found;

	do
	:: atomic { gone++; break }		/* the program does something else for ever */
	:: true ->
again:
#ifndef M_REGISTER_LATE
		registered[me] = 1;
#endif
#ifdef M_ARM_LAST
		drain(me);
		armed = 1;
#else
		armed = 1;
#ifndef M_NO_ARM_RECHECK
		drain(me);
#endif
#endif
#ifdef M_REGISTER_BUFFERED
		registered[me] = 0;
#endif
		if
#ifndef M_NO_LOOK
		:: atomic { MINE -> goto take }
#endif
#ifdef M_NO_ARM_RECHECK
		:: atomic { !MINE }
#elif defined(M_NO_LOOK)
		:: atomic { !found }
		:: atomic { found -> goto take }
#else
		:: atomic { !MINE && found -> goto again }
		:: atomic { !MINE && !found }
#endif
		fi;
#ifdef M_EVENTFD_LATE
		EFD(me) = 0;
#endif
#if defined(M_REGISTER_LATE) || defined(M_REGISTER_BUFFERED)
		registered[me] = 1;
#endif
		atomic { asleep[me] = 1;
#ifdef SET
			told[me] = (event > 0 || efd[0]) && !told[1 - me]
#endif
			};
#ifdef SET
		atomic { told[me] -> asleep[me] = 0; told[me] = 0 };
#else
		atomic { event > 0 || EFD(me) -> asleep[me] = 0 };
#endif
#ifndef M_EVENTFD_LATE
		EFD(me) = 0;		/* before looking */
#endif
		goto again;
take:
		atomic { registered[me] = 0;
#ifdef SET
			/* one of those that are ready; a level-triggered set in which others are registered, asleep or about to be: the wake is passed on */
			if :: ready[0] > 0 -> ready[0]-- :: ready[0] == 0 && ready[1] > 0 -> ready[1]-- :: else fi;
#ifdef M_PASSED_TO_SLEEPERS
			if :: MINE && asleep[1 - me] -> efd[0] = 1 :: else fi
#elif !defined(M_NOT_PASSED_ON)
			if :: MINE && registered[1 - me] -> efd[0] = 1 :: else fi
#else
			skip
#endif
#else
			if :: ready[me] > 0 -> ready[me]-- :: else fi
#endif
			}
	od
}

#ifdef SET
/* the kernel: a descriptor that becomes readable, or is still, wakes one sleeper of the set */
proctype kernel()
{
end:	do
	:: atomic { (event > 0 || efd[0]) && !told[0] && !told[1] && asleep[0] -> told[0] = 1 }
	:: atomic { (event > 0 || efd[0]) && !told[0] && !told[1] && asleep[1] -> told[1] = 1 }
	od
}
#endif

proctype busy()
{
	byte g0, g1;
	bool found;

	do
	:: drain(BUSY)
	:: break
	od
}

proctype monitor()
{
end:	timeout;
#ifdef SET
	assert(!(asleep[0] || asleep[1]) || (ready[0] + ready[1] + cq[0] + cq[1] == 0))
#else
	assert(!asleep[0] || (ready[0] + cq[0] == 0));
	assert(!asleep[1] || (ready[1] + cq[1] == 0))
#endif
}

init {
	atomic {
		run adapter(0); run adapter(1);
		run waiter(0); run waiter(1);
		run busy();
#ifdef SET
		run kernel();
#endif
		run monitor()
	}
}
