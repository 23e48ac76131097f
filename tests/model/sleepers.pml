/*
 * sleepers.pml - opening a gate against threads that go to sleep in an epoll set (G14, G15, G17), for spin 6.5
 *
 * A set's list holds the open gates and the closed ones whose ring is not empty. An opener, under the connection's
 * opening try-lock, enters the list, reads the gate, looks at the sleepers last and compare-and-swaps with the epoch it
 * read. A sleeper takes no lock: it counts itself in, walks the list, closes each gate and raises each epoch, and only
 * then enters the kernel. An entry leaves only under the try-lock, with the gate closed and the ring empty. Either the
 * opener sees the sleeper, or the sleeper sees the entry and the opener's compare-and-swap fails.
 *
 * Modelled: one sender per connection (ring or TCP, its put a compare-and-swap); SLEEPERS threads in epoll_wait on one
 * level-triggered set, which receive what they are told of and may open; OPENERS threads that receive and open at any time and
 * never sleep; every step of opening, walking and leaving on its own; a list that is changed while it is walked; with -DADD the
 * last connection is not in the set at first and one opener adds it while others sleep (G17: apply, close, kick).
 * The walk of an epoll_wait with a time-out of 0 is a look without counting in, as G18 has it.
 * Not modelled: order of bytes and seams (gate.pml), edge-triggered sets, several sets, a dead owner of the try-lock (the gate
 * just stays closed), weak memory except as M_ENTER_BUFFERED and M_COUNT_BUFFERED: on real machines the pair "enter, look at
 * the count" against "count in, look at the list" is store-then-load on both sides and needs sequential consistency.
 *
 * Checks: whoever enters the kernel leaves no open gate and no readable ring behind in its set; no opening succeeds over a
 * thread that has finished its walk; nobody sleeps for good with something to read (monitor).
 */
#ifndef N
#define N 2		/* bytes a sender has */
#endif
#ifndef CONNS
#define CONNS 1
#endif
#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#ifndef OPENERS
#define OPENERS 2
#endif
#ifdef ADD
#define LAST	(CONNS - 1)
#endif

/* ---- per connection ---- */
bool g_open[CONNS];
byte unread[CONNS];			/* head - tail */
bool put_ok[CONNS], open_ok[CONNS];	/* epoch unchanged since the sender / the holder of olock loaded the gate */
bool olock[CONNS];			/* opening try-lock */
byte tcp[CONNS];			/* bytes the kernel has for us */

/* ---- the set ---- */
bool in_set[CONNS];			/* registered */
bool listed[CONNS];
byte sleepers;				/* in, or about to enter, a kernel wait or receive */
bool kick;				/* the private eventfd is in the set, one-shot (EEXIST means MOD) */

/* ---- ghosts ---- */
byte asleep;				/* walked to the end, nothing found */
byte gone;				/* threads that left the model */
bool adding;				/* an ADD is registered and not yet through */

#define NONEMPTY(c)	(unread[c] > 0)
#if CONNS == 1
#define KERNEL		((tcp[0] > 0 && in_set[0]) || kick)
#define OPENGATE	(g_open[0] && in_set[0])
#define READABLE	(NONEMPTY(0) && in_set[0])
#else
#define KERNEL		((tcp[0] > 0 && in_set[0]) || (tcp[1] > 0 && in_set[1]) || kick)
#define OPENGATE	((g_open[0] && in_set[0]) || (g_open[1] && in_set[1]))
#define READABLE	((NONEMPTY(0) && in_set[0]) || (NONEMPTY(1) && in_set[1]))
#endif

/* closing: OPEN clear and the epoch raised, even if it was clear already */
inline close_gate(c) {
	d_step {
#ifdef M_CLOSED_KEEPS_EPOCH
		if
		:: g_open[c] -> put_ok[c] = 0; open_ok[c] = 0
		:: else
		fi;
#else
		put_ok[c] = 0; open_ok[c] = 0;
#endif
		g_open[c] = 0
	}
}

proctype X(byte c)
{
	byte n;
	bool open;

	do
	:: n == N -> break
	:: n < N ->
		d_step { open = g_open[c]; put_ok[c] = 1; n++ };
		if
		:: atomic { open && g_open[c] && put_ok[c] -> unread[c]++ }		/* the compare-and-swap */
		:: atomic { !(open && g_open[c] && put_ok[c]) -> put_ok[c] = 0 };
			d_step {							/* leave, then the kernel */
				if
				:: g_open[c] -> open_ok[c] = 0
				:: else
				fi
			};
			tcp[c]++
		:: atomic { true -> put_ok[c] = 0 };					/* TCP for any other reason */
			d_step {
				if
				:: g_open[c] -> open_ok[c] = 0
				:: else
				fi
			};
			tcp[c]++
		fi
	od
}

/* end of a receive: open the gate, if nothing speaks against it */
inline open_gate(c) {
	if
#ifdef M_OPEN_NO_LOCK
	:: !g_open[c] ->
#else
	:: atomic { !olock[c] -> olock[c] = 1 };
#endif
#if !defined(M_ENTER_LATE) && !defined(M_ENTER_BUFFERED)
		d_step { if :: in_set[c] -> listed[c] = 1 :: else fi };
#endif
#ifdef M_COUNT_FIRST
		atomic {
			if
			:: in_set[c] && sleepers > 0 -> olock[c] = 0; goto opened
			:: else
			fi
		};
#endif
		d_step { open_ok[c] = !g_open[c] };
#if !defined(M_COUNT_FIRST) && !defined(M_NO_COUNT)
		atomic {
			if
			:: in_set[c] && sleepers > 0 -> open_ok[c] = 0; olock[c] = 0; goto opened
			:: else
			fi
		};
#endif
#ifdef M_ENTER_BUFFERED
		d_step { if :: in_set[c] -> listed[c] = 1 :: else fi };	/* the store leaves its buffer at the compare-and-swap */
#endif
		d_step {
			if
#ifdef M_OPEN_NO_EPOCH
			:: !g_open[c] ->
#else
			:: open_ok[c] && !g_open[c] ->
#endif
				assert(asleep == 0 || !in_set[c] || adding);
				g_open[c] = 1; open_ok[c] = 0; put_ok[c] = 0
			:: else
			fi
		};
#ifdef M_ENTER_LATE
		d_step { if :: in_set[c] -> listed[c] = 1 :: else fi };
#endif
		olock[c] = 0
	:: true
	fi;
opened:
	skip
}

/* an entry goes off the list */
inline unlist(c) {
	if
#ifdef M_UNLIST_NO_LOCK
	:: listed[c] ->
		if
		:: !g_open[c] && !NONEMPTY(c) -> listed[c] = 0
		:: else
		fi
#else
	:: atomic { listed[c] && !olock[c] -> olock[c] = 1 };
		if
#ifdef M_UNLIST_NONEMPTY
		:: !g_open[c] ->
#else
		:: !g_open[c] && !NONEMPTY(c) ->
#endif
			listed[c] = 0
		:: else
		fi;
		olock[c] = 0
#endif
	:: true
	fi
}

/* recv, non-blocking: some of the ring, or (G11) the gate closed and the kernel asked */
inline receive(c) {
	if
	:: atomic { NONEMPTY(c) -> unread[c]-- }
	:: !NONEMPTY(c) ->
		sleepers++;
		close_gate(c);
		d_step {
			if
			:: !NONEMPTY(c) && tcp[c] > 0 -> tcp[c]--
			:: else
			fi;
			sleepers--
		}
	fi
}

/*
 * Level-triggered, the kernel wakes the next waiter as long as the descriptor is readable: an event that was reported goes
 * back to the ready list. The one who reports a ring does the same for those who sleep beside it.
 */
inline pass_on(c) {
#ifndef M_KICK_ONCE
	d_step {
		if
		:: NONEMPTY(c) && sleepers > 0 -> kick = 1
		:: else
		fi
	}
#else
	skip
#endif
}

proctype sleeper()
{
	byte c, ev;

wait:
	/* the list's rings, without counting in */
	atomic { c = 0; ev = CONNS };
	do
	:: c < CONNS ->
		atomic {
			if
			:: listed[c] && NONEMPTY(c) -> ev = c
			:: else
			fi;
			c++
		}
	:: atomic { c == CONNS -> c = 0; break }
	od;
	if
	:: ev < CONNS -> pass_on(ev); goto event
	:: ev == CONNS
	fi;

#if !defined(M_COUNT_LATE) && !defined(M_COUNT_BUFFERED)
	sleepers++;
#endif
	do
	:: c < CONNS && !listed[c] -> c++
	:: c < CONNS && listed[c] ->
#ifdef M_WALK_OPEN_ONLY
		if
		:: g_open[c] -> close_gate(c)
		:: else
		fi;
#else
		close_gate(c);
#endif
		if
		:: NONEMPTY(c) -> ev = c
		:: else
		fi;
#ifdef M_WALK_UNLISTS
		if
		:: !g_open[c] && !NONEMPTY(c) -> listed[c] = 0
		:: else
		fi;
#endif
		c++
	:: atomic { c == CONNS -> c = 0; break }
	od;
#if defined(M_COUNT_LATE) || defined(M_COUNT_BUFFERED)
	sleepers++;
#endif
	if
	:: atomic { ev < CONNS -> sleepers-- }; pass_on(ev); goto event
	:: atomic { ev == CONNS ->
			assert(!OPENGATE || adding);
			asleep++ }
	fi;
end_s:	atomic { KERNEL -> asleep--; sleepers--;
		if
		:: tcp[0] > 0 && in_set[0] -> ev = 0
#if CONNS > 1
		:: tcp[1] > 0 && in_set[1] -> ev = 1
#endif
		:: kick -> kick = 0; ev = CONNS
		fi };
	if
	:: ev == CONNS -> goto wait
	:: ev < CONNS
	fi;
event:
	receive(ev);
	if
	:: open_gate(ev)
	:: unlist(ev)
	:: true
	fi;
	atomic {
		ev = 0;
		if
		:: goto wait
		:: gone++		/* busy with something else for ever */
		fi
	}
}

proctype opener(byte id)
{
	byte c;

#ifdef ADD
	bool seen;
	if
	:: id == 0 ->
		/* epoll_ctl ADD of a connection whose gate may be open and whose ring may be readable */
#ifdef M_ADD_LOOKS_FIRST
		seen = (sleepers > 0);
#endif
		d_step { in_set[LAST] = 1; listed[LAST] = 1; adding = 1 };
#ifndef M_ADD_LOOKS_FIRST
		seen = (sleepers > 0);
#endif
#ifdef M_ADD_NO_CLOSE
		seen = 0;
#endif
		if
		:: seen ->
#ifdef M_ADD_OPEN_ONLY
			if
			:: g_open[LAST] -> close_gate(LAST)
			:: else
			fi;
#else
			close_gate(LAST);
#endif
#ifndef M_NO_KICK
			d_step { if :: NONEMPTY(LAST) -> kick = 1 :: else fi };
#endif
		:: !seen
		fi;
		atomic { assert(asleep == 0 || !g_open[LAST]); adding = 0; seen = 0; gone++; goto out }
	:: id > 0
	fi;
#endif
	do
	:: atomic { gone++; break }
	:: d_step { true -> c = 0 };
#if CONNS > 1
		if
		:: c = 1
		:: true
		fi;
#endif
		receive(c);
		if
		:: open_gate(c)
		:: unlist(c)
		:: true
		fi;
		c = 0
	od;
out:
	skip
}

/* asleep for good beside something to read, or with a gate open */
proctype monitor()
{
end_m:	atomic { asleep > 0 && asleep + gone == SLEEPERS + OPENERS && !KERNEL && (READABLE || OPENGATE) -> assert(false) }
}

init {
	byte i;

	atomic {
		i = 0;
		do
		:: i < CONNS -> in_set[i] = 1; i++
		:: i == CONNS -> break
		od;
#ifdef ADD
		in_set[LAST] = 0;
		g_open[LAST] = 1;
#endif
		i = 0; do :: i < CONNS -> run X(i); i++ :: i == CONNS -> break od;
		i = 0; do :: i < SLEEPERS -> run sleeper(); i++ :: i == SLEEPERS -> break od;
		i = 0; do :: i < OPENERS -> run opener(i); i++ :: i == OPENERS -> break od;
		run monitor();
		i = 0
	}
}
