/*
 * base.pml - a ring that starts over at its first byte, for spin 6.5
 *
 * include/wsd/shared_ring.h gives a direction a word `base`: the head value that lies at ring offset 0. X may store a
 * new one whenever it has seen tail = head under its put lock, also inside a running segment, so that a chatty
 * connection touches one page. The new base becomes valid with the compare-and-swap that publishes the bytes behind it.
 * Y reads the gate, then base, copies, and advances tail by compare-and-swap (G10); it lost the race: copy again.
 * Shown here: with two sender threads and two readers nobody ever delivers a wrong byte, a byte twice or none.
 *
 * Modelled: the try-lock (G4), copies byte by byte on both sides, a put as compare-and-swap against the whole gate word (G1),
 * departures by the thread that did not get the lock (G3), closing and opening by Y at any moment, a base stored for a
 * put that then fails, tail in Y's own page and its copy that is only ever raised, the order of the loads on both sides.
 * Not modelled: TCP's bytes (gate.pml has them; nothing here depends on what a departure sends), weak memory, and the wrap
 * of the 32 bit counts: a reader stalled while exactly 2^32 bytes go by would win a compare-and-swap of 32 bits, so the
 * tail that counts (side.taken) must have 64 (docs/model.md).
 *
 * Checks: the byte delivered at stream position p is byte p; positions are delivered once, without a gap; a copy stays inside
 * the ring; X never sees more than a ring of bytes unread; at the end (invalid end states) all N were delivered.
 */
#ifndef N
#define N 4		/* bytes of the stream; sender threads take turns as they come */
#endif
#ifndef RING
#define RING 2
#endif
#ifndef CLOSES
#define CLOSES 1	/* times Y closes and opens again by itself */
#endif
#ifndef LEAVES
#define LEAVES 1	/* times a thread without the lock leaves the ring */
#endif

/* ---- memory that both ends map ---- */
bool g_open = 1;
bool g_on;
byte g_head;		/* bytes put; byte p of the stream has the value p + 1 */
byte base;
byte tail;		/* the copy that X reads */
byte ring[RING];

/* ---- X's own page ---- */
bool xlock;
bool cas_ok;		/* epoch as the holder of xlock loaded it: one bit, as in gate.pml */
byte leaves;

/* ---- Y's own page ---- */
byte ytail;		/* the tail that counts */

/* ---- ghosts ---- */
byte delivered;

#define OFF(pos, b)	((pos + 4 * RING - b) % RING)

inline leave() {
	d_step {
		if
		:: g_open -> g_on = 0; cas_ok = 0
		:: else
		fi
	}
}

proctype X(bit id)
{
	byte h, t, b, n, i;
	bool on;

	do
	:: atomic { g_head == N -> break }
	:: atomic { xlock && leaves < LEAVES && g_head != N -> leaves++ }; leave()	/* this thread's bytes go to TCP */
#ifdef M_NO_LOCK
	:: g_head != N ->
#else
	:: atomic { !xlock && g_head != N -> xlock = 1 };
#endif
		d_step { h = g_head; on = g_on; cas_ok = 1; n = g_open };
		if
		:: n == 0 || h == N -> goto out
		:: else
		fi;
		t = tail;
		assert(h - t <= RING);			/* an honest Y never looks broken */
		if
		:: !on && h != t -> goto out		/* G2 */
		:: on && h - t >= RING -> goto out	/* G5, not of interest here */
		:: else
		fi;
		b = base;
		if
#ifdef M_BASE_ANYTIME
		:: h != b ->
#else
		:: h == t && h != b ->
#endif
			b = h;
#ifndef M_BASE_LATE
			base = b
#endif
		:: true
		fi;
		d_step {
			n = RING - (h - t);		/* room */
			n = (N - h < n -> N - h : n)
		};
		if
		:: n > 1 -> n = 1
		:: true
		fi;
		i = 0;
		do
		:: i < n -> ring[OFF(h + i, b)] = h + i + 1; i++
		:: i == n -> break
		od;
		atomic {				/* the compare-and-swap */
			if
			:: g_open && g_on == on && g_head == h && cas_ok -> g_on = 1; g_head = h + n
			:: else
			fi
		};
#ifdef M_BASE_LATE
		base = b;
#endif
out:
		atomic { xlock = 0; h = 0; t = 0; b = 0; n = 0; i = 0; on = 0 }
	od
}

proctype Y(bit me)
{
	byte t, h, b, n, i;
	byte buf[RING];

	do
	:: atomic { ytail == N -> break }
	:: ytail != N ->
		t = ytail;
#ifdef M_BASE_FIRST
		b = base;
#endif
		h = g_head;				/* acquire: what was published with this head is seen */
		if
		:: h == t -> goto again
		:: else
		fi;
#ifndef M_BASE_FIRST
		b = base;
#endif
		d_step {
			n = h - t;
#ifndef M_NO_BOUND
			if
			:: n > RING -> n = 0		/* G10: judged on an old tail; start over */
			:: else
			fi
#endif
		};
		if
		:: n == 0 || n > N -> goto again
		:: else
		fi;
		if
		:: n > 1 -> n = 1			/* the program asked for less */
		:: true
		fi;
		i = 0;
		do
		:: i < n ->
			assert(i < RING);
			buf[i] = ring[OFF(t + i, b)]; i++
		:: i == n -> break
		od;
#ifdef M_RAISE_FIRST
		atomic { if :: tail < t + n -> tail = t + n :: else fi };
#endif
#ifdef M_TAIL_STORE
		atomic {
			if
			:: true ->			/* no compare: whoever comes last wins */
#else
		atomic {
			if
			:: ytail == t ->
#endif
				ytail = t + n;
				i = 0;
				do
				:: i < n ->
					assert(t + i == delivered);	/* once, in order */
					assert(buf[i] == t + i + 1);	/* the right byte */
					delivered++; i++
				:: i == n -> break
				od
			:: else -> n = 0
			fi
		};
		if
		:: n > 0 ->
			d_step {
#ifdef M_TAIL_NOT_RAISED
				tail = t + n
#else
				if
				:: tail < t + n -> tail = t + n
				:: else
				fi
#endif
			}
		:: else
		fi;
again:
		atomic { t = 0; h = 0; b = 0; n = 0; i = 0; buf[0] = 0; buf[1] = 0 }
	od
}

/* Y goes to sleep and comes back: the epoch rises twice, at any moment of a put */
proctype closer()
{
	byte k;

	do
	:: k < CLOSES -> k++;
		d_step { g_open = 0; g_on = 0; cas_ok = 0 };
		d_step { g_open = 1; cas_ok = 0 }
	:: k == CLOSES -> break
	od
}

init {
	atomic { run X(0); run X(1); run Y(0); run Y(1); run closer() };
	_nr_pr == 1;
	assert(delivered == N && tail == N)		/* nothing lost, and X sees its room again */
}
