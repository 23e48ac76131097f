/*
 * The gate: one direction X -> Y of a connection (gate.md), for spin 6.5.
 *
 * The model is the protocol as corrected; the text as it first stood failed (mutants marked T).
 *
 * Modelled: two sender threads (try-lock, copy then compare-and-swap, first put of a segment, overflow, fall-back,
 * non-blocking EAGAIN, orderly shutdown); TCP as wire (handed) and rcvq (delivered); a reader (blocking or not, WANT bytes);
 * a second Y thread in poll (level-triggered; -DET: edge-triggered, and the reader runs on its events until EAGAIN;
 * with -DET_SHORT until a short count; the ET wait may also ask the kernel with the gate open); opening; the EAGAIN
 * short cut; -DREADERS=2; -DKILL_X (all threads stop, FIN follows), -DKILL_Y (then the daemon closes), -DSHUT (shutdown at any time
 * against the other thread's put), -DHOSTILE (X writes anything into the shared words), -DINIT_OPEN (the gate starts open).
 * Epoch: the gate word carries a count that every leave() and every opening advances.  An unbounded count is modelled by one bit,
 * cas_ok: cleared when it advances, so a wrap is not modelled.  sleepers-with-closing and the test-and-open are one step each (their lock).
 * Not modelled: weak memory (sequential consistency), several processes (users.pml), the restart of base (base.pml), C and H against TCP_INFO, urgent data, RST on close with unread
 * bytes, ring replacement, MSG_PEEK/WAITALL, epoll sets (sleepers.pml), spinning policy, cancelled threads, SIOCOUTQNSD (not needed for safety).
 *
 * Checks: per-thread order and exactly once, also real-time order between calls of the two threads (deliver); everything given, then EOF;
 * an honest peer never looks broken and FIN never comes before start (BROKEN); EAGAIN and short counts only after a moment with nothing
 * readable (eseen); lost wake-ups (monitor, invalid end states); at most RING bytes put after Y's death (late); copies stay inside the ring.
 * Receiving nothing and stopping is allowed to the program at any time, hence the end labels of the blocked sender.
 *
 * Run:  tests/model/run (large ones by hand: -DBITSTATE instead of -DCOLLAPSE and pan -w32).  With KILL_X, KILL_Y, HOSTILE: pan -E
 *       (frozen processes are no deadlock).
 *       Trace: spin [-D...] -t -p -g gate.pml
 *
 * Results: docs/model.md; the configurations and their mutants: table.
 * So N is 2 to 4 here, not 7; larger N only as partial searches.
 *
 * Mutants (T: the text as it first stood, or one reading of it), each caught by an assertion:
 *   M_NO_EPOCH (T)        no epoch                               -DNA=2 -DNB=2 -DNO_WAITER
 *   M_NO_EPOCH_LEAVE, M_NO_EPOCH_OPEN   one half of it            the same
 *   M_CLOSE_KEEPS_ON (T)  closing clears OPEN only               the same
 *   M_NO_IN_SEND, M_IN_SEND_EARLY   not counted; counted out before H   the same
 *   M_START_LATE          start stored after the CAS             -DNA=2 -DNB=1 -DNO_WAITER
 *   M_SHORTCUT_ANY        EAGAIN without OPEN and ON_RING         the same
 *   M_UNBOUNDED           TCP read without bound                  -DNA=3 -DNB=1 -DWANT=2 -DNO_WAITER
 *   M_OVERFLOW_KEEPS_ON   ON_RING not cleared before TCP          -DNA=3 -DNB=1 -DNO_WAITER
 *   M_SEGMENT_ON_NONEMPTY segment started with tail != head      the same
 *   M_OPEN_NO_SLEEPERS    opening without looking at sleepers     -DNA=2 -DNB=1
 *   M_WAIT_NO_CLOSE       kernel entered with the gate open       the same
 *   M_EXACT_POLL          poll sleeps while the ring holds bytes behind TCP bytes in flight   the same
 *   M_SHORT (T)           a receive ends at the seam with a short count   -DNA=2 -DNB=1 -DET -DET_SHORT -DWANT=2
 *   M_NO_KEVENT           no memory of a kernel event             -DNA=1 -DNB=1 -DET -DINIT_OPEN -DKILL_X, pan -E
 *   M_KEVENT_BOUNDED (T)  a bounded read clears that memory       the same (17 M states)
 *   M_NO_BOUND            head - tail not checked                 -DHOSTILE -DWANT=4 -DNO_WAITER, pan -E
 *   M_NO_RELOAD (T)       C > start judged on an old tail         -DNA=2 -DNB=1 -DNO_WAITER -DREADERS=2
 *   M_NO_RXLOCK (T), M_SLEEP_RING (T)   bounded TCP read without a lock; sleeping unbounded with a non-empty ring   the same
 * Not caught, so not needed in this model: M_SHUT_NO_LEAVE (the flag suffices), M_KEVENT_LATE.
 */
#ifndef NA
#define NA 3            /* bytes sent by sender thread 0 */
#endif
#ifndef NB
#define NB 2            /* bytes sent by sender thread 1 */
#endif
#ifndef RING
#define RING 2
#endif
#ifndef RCVQ
#define RCVQ 2          /* TCP: delivered, not yet received */
#endif
#ifndef WIRE
#define WIRE 1          /* TCP: handed to the kernel, not yet delivered */
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef WANT
#define WANT 1          /* largest receive */
#endif

/* ---- memory that both ends map ---- */
#ifdef INIT_OPEN
bool g_open = 1;
#else
bool g_open;
#endif
bool g_on;              /* gate: OPEN, ON_RING ... */
byte g_head;            /* ... and head.  The epoch is modelled by cas_ok, below */
byte start;
byte tail;
byte ring[RING];

/* ---- X's own page ---- */
byte H;                 /* bytes handed to TCP, as X counts them */
byte in_send;           /* threads inside a kernel send */
bool xlock;             /* try-lock of the direction */
bool x_shut;            /* flag of shutdown(SHUT_WR) and close */
bool cas_ok;            /* epoch unchanged since the owner of xlock loaded the gate */

/* ---- Y's own page ---- */
byte C;                 /* bytes taken from TCP, as Y counts them */
byte sleepers;          /* threads in, or about to enter, the kernel */
bool rxlock;            /* bounded TCP reads */
bool kevent;            /* kernel reported an event since the last exact receive */
byte lasth;             /* edge-triggered: head last reported */

/* ---- kernel ---- */
chan wire = [WIRE] of { byte };
chan rcvq = [RCVQ] of { byte };
bool fin_sent;
bool x_dead, y_dead;
bool edge;              /* edge-triggered: arrival not yet reported */
#ifdef ET
#define EDGE edge = 1
#else
#define EDGE skip
#endif
#define FININ   (fin_sent && (len(wire) == 0))
#define KREAD   ((len(rcvq) > 0) || FININ)          /* kernel says readable */

/* ---- ghosts ---- */
byte sent[2];           /* calls returned */
byte given[2];          /* bytes published or handed */
byte next[2];           /* bytes delivered */
byte Ck;                /* bytes really taken from TCP */
byte y_idle;            /* reader threads between calls */
byte w_in, r_in;        /* threads asleep in the kernel: waits, receives */
bool token;             /* the event loop told the reader */
bool y_eof;
byte late;              /* bytes put after the death of Y */

bool eseen[2];          /* in this call, and after its last byte: a moment with nothing readable */
#define TOOK eseen[me] = !READABLE; eseen[1 - me] = eseen[1 - me] || !READABLE

#define NONEMPTY  (g_head != tail)
/* the next byte of the stream can be had by Y now */
#define READABLE  ((NONEMPTY && Ck >= start) || (len(rcvq) > 0))

inline deliver(b) {
#ifdef HOSTILE
    skip
#else
    assert(((b >> 3) & 7) == next[b >> 6]);          /* order within a thread, exactly once */
    assert(next[1 - (b >> 6)] >= (b & 7));           /* after all that had returned when its call began */
    next[b >> 6]++
#endif
}
#ifdef HOSTILE
#define BROKEN goto broken
#else
#define BROKEN assert(false)    /* an honest peer must never look broken */
#endif

/* every road out of the ring: makes every compare-and-swap in progress fail */
inline leave() {
#ifdef M_OVERFLOW_KEEPS_ON
    skip
#else
    d_step {
        if
        :: g_open ->
            g_on = 0;
#if !defined(M_NO_EPOCH) && !defined(M_NO_EPOCH_LEAVE)
            cas_ok = 0
#endif
        :: else
        fi
    }
#endif
}

#if defined(KILL_X)
proctype X(byte id) provided (!x_dead)
#else
proctype X(byte id)
#endif
{
    byte seq, dep, lh, n, h, max;
    bool lon, ok;
    max = (id == 0 -> NA : NB);
next_call:
    if
    :: atomic { seq == max -> goto fin }
#ifdef SHUT
    :: atomic { id == 1 -> goto fin }       /* shutdown at any time, with a put of the other thread in progress */
#endif
    :: atomic { seq < max -> dep = sent[1 - id] }
    fi;
try:
    if
    :: atomic { xlock || x_shut -> goto tcp }
    :: atomic { !xlock && !x_shut ->
            xlock = 1; lon = g_on; lh = g_head; cas_ok = 1; n = 1;
            if
            :: !g_open -> xlock = 0; goto tcp
            :: else
            fi }
    fi;
    atomic {
        if
        :: lon && lh - tail >= RING ->      /* ring full: a blocking sender spins for room, or overflow */
            xlock = 0;
            if
            :: lh = 0; n = 0; lon = 0; goto try
            :: goto tcp
            fi
#ifndef M_SEGMENT_ON_NONEMPTY
        :: !lon && lh != tail -> xlock = 0; goto tcp
#else
        :: !lon && lh - tail >= RING -> xlock = 0; goto tcp
#endif
        :: else ->
            if
            :: lh - tail + 1 < RING && seq + 1 < max -> n = 2
            :: true
            fi
        fi
    };
    if
    :: lon
    :: !lon ->
#ifndef M_NO_IN_SEND
        if
        :: atomic { in_send != 0 -> xlock = 0; goto tcp }
        :: in_send == 0
        fi;
#endif
#ifndef M_START_LATE
        h = H;
        start = h
#endif
    fi;
    d_step {
        ring[lh % RING] = (id << 6) | (seq << 3) | dep;
        if
        :: n == 2 -> ring[(lh + 1) % RING] = (id << 6) | ((seq + 1) << 3) | dep
        :: else
        fi;
        /* the compare-and-swap */
        if
        :: g_open && g_on == lon && g_head == lh && cas_ok ->
            g_on = 1; g_head = lh + n; given[id] = given[id] + n; ok = 1;
            if
            :: y_dead -> late = late + n
            :: else
            fi
        :: else -> ok = 0
        fi;
        h = 0; lh = 0
    };
#ifdef M_START_LATE
    if
    :: ok && !lon -> start = H
    :: else
    fi;
#endif
    atomic {
        xlock = 0; lon = 0;
        if
        :: ok -> seq = seq + n; sent[id] = seq; n = 0; ok = 0; dep = 0; goto next_call
        :: else
        fi
    };
tcp:
    atomic { n = 0; lh = 0; lon = 0; in_send++ };
    leave();
endk:
    if
    :: atomic { fin_sent || y_dead -> in_send--; goto dead }            /* EPIPE, ECONNRESET */
    :: atomic { !fin_sent && !y_dead && (len(wire) < WIRE) -> wire!((id << 6) | (seq << 3) | dep); given[id]++ }
    :: atomic { !fin_sent && !y_dead && (len(wire) == WIRE) -> in_send-- };     /* non-blocking: EAGAIN, then EPOLLOUT */
endw:   atomic { (len(wire) < WIRE) || y_dead || fin_sent -> goto try }
    fi;
#ifdef M_IN_SEND_EARLY
    in_send--;
    d_step { H++; seq++; sent[id] = seq; dep = 0 }
#else
    H++;
    d_step { in_send--; seq++; sent[id] = seq; dep = 0 }
#endif
    goto next_call;
fin:
    if
    :: id == 1 ->
#ifndef SHUT
endf:   (sent[0] == NA || y_dead);
#endif
        x_shut = 1;
#ifndef M_SHUT_NO_LEAVE
        leave();
#endif
        d_step { fin_sent = 1; EDGE }
    :: else
    fi;
dead: skip
}

proctype net() {
    byte b;
end:do
    :: atomic { (len(wire) > 0) && (len(rcvq) < RCVQ) -> wire?b; rcvq!b; b = 0; EDGE }
    od
}

#ifdef KILL_X
proctype killx() { d_step { x_dead = 1; fin_sent = 1; EDGE } }
#endif
#ifdef KILL_Y
proctype killy() {
    y_dead = 1;
    d_step { g_open = 0; g_on = 0; cas_ok = 0 }      /* the daemon */
}
#endif

/* sleepers++ and the closing, under the lock of opening; the lock is only seen in what it keeps apart */
inline gate_close(h) {
    d_step {
        sleepers++;
        h = g_head;
#ifndef M_WAIT_NO_CLOSE
        g_open = 0;
#ifndef M_CLOSE_KEEPS_ON
        g_on = 0
#endif
#endif
    }
}

#ifdef KILL_Y
proctype reader(bit me) provided (!y_dead)
#else
proctype reader(bit me)
#endif
{
    byte h, t, s, b, b2, n, got, want, c;
    bool nb, full_;
call:
#ifdef ET
    if
    :: full_                            /* edge-triggered programs read on until EAGAIN (or, ET_SHORT, a short count) */
    :: !full_ -> y_idle++;
end_t:  atomic { token -> token = 0; y_idle-- }
    fi;
    atomic { nb = 1; want = WANT; eseen[me] = !READABLE; got = 0; full_ = 0 }
#else
    y_idle++;
    atomic {
        if
        :: goto stop                    /* the program may stop reading for ever */
        :: nb = 0
        :: nb = 1
        fi;
        if
        :: want = 1
#if WANT > 1
        :: want = WANT
#endif
        fi;
        y_idle--; eseen[me] = !READABLE; got = 0
    }
#endif
again:
    atomic {
        h = g_head; t = tail;
        if
        :: got == want -> goto done
        :: got != want && h == t -> goto dry
        :: else
        fi
    };
    d_step { s = start; c = C; n = h - t };
#if READERS > 1 && !defined(M_NO_RELOAD)
    if
    :: atomic { tail != t -> goto again }       /* another reader was here: start and C are of another segment */
    :: tail == t
    fi;
#endif
    if
#ifndef M_NO_BOUND
    :: n > RING -> BROKEN
    :: n <= RING && c > s -> BROKEN
    :: n <= RING && c == s ->
#else
    :: c > s -> BROKEN
    :: c == s ->
#endif
        d_step { n = (n < want - got -> n : want - got);
            assert(n <= RING);          /* a copy never leaves the ring */
            b = ring[t % RING]; b2 = ring[(t + 1) % RING] };
        d_step {
            if
            :: tail == t ->
                ring[t % RING] = 0; if :: n == 2 -> ring[(t + 1) % RING] = 0 :: else fi;    /* fewer states */
                tail = t + n; deliver(b); got++;
                if :: n == 2 -> deliver(b2); got++ :: else fi;
                TOOK
            :: else
            fi;
            b = 0; b2 = 0; n = 0
        }
#ifdef M_SHORT
        if
        :: got == want -> goto done
        :: got && got < want -> goto eagain
        :: got == 0 -> goto again
        fi
#else
        goto again
#endif
    :: else                             /* C < start: TCP, bounded */
    fi;
#if READERS > 1
#ifndef M_NO_RXLOCK
    atomic { !rxlock -> rxlock = 1; sleepers++ };   /* one at a time, and no opening meanwhile */
    atomic {
        c = C; s = start;                           /* look again under the lock */
        if
        :: tail != t || c >= s -> rxlock = 0; sleepers--; goto again
        :: else
        fi
    };
#endif
#endif
    n = (s - c < want - got -> s - c : want - got);
#ifdef M_UNBOUNDED
    n = want - got;
#endif
    c = 0;
    do
    :: atomic { (len(rcvq) > 0) && c < n -> rcvq?b; Ck++; deliver(b); got++; b = 0; c++; TOOK }
    :: atomic { (len(rcvq) == 0) || c == n -> break }
    od;
    atomic {
        C = C + c; n = 0; h = 0; t = 0;
#ifdef M_KEVENT_BOUNDED
        kevent = 0;                     /* a bounded read taken for an exact one */
#endif
#if READERS > 1 && !defined(M_NO_RXLOCK)
        rxlock = 0; sleepers--;
#endif
        if
        :: c -> c = 0; goto again
        :: else
        fi
    };
    if
    :: atomic { (len(rcvq) == 0) && FININ && Ck < s && NONEMPTY -> BROKEN }      /* FIN before start */
    :: atomic { (len(rcvq) == 0) && !FININ && (nb || got) -> goto eagain }
#if READERS > 1 && !defined(M_SLEEP_RING)
    :: atomic { (len(rcvq) == 0) && !FININ && !nb && !got -> skip };
        (KREAD || C >= start || !NONEMPTY);         /* stands for: a short time-out, then look again */
#else
    :: atomic { (len(rcvq) == 0) && !FININ && !nb && !got -> r_in++ };
        atomic { KREAD -> r_in-- }
#endif
        goto again
    :: atomic { (len(rcvq) > 0) || Ck >= s || !NONEMPTY -> goto again }
    fi;
dry:
#ifdef M_SHORT
    if
    :: got -> goto eagain
    :: else
    fi;
#endif
    /* the short cut, for EAGAIN and for short counts */
    if
#ifdef ET
    :: (nb || got) && !kevent ->
#else
    :: nb || got ->
#endif
        d_step { h = g_head; n = g_open && g_on };
#ifdef M_SHORTCUT_ANY
        n = 1;
#endif
        if
        :: h == tail && n ->
            atomic { s = start; if :: C == s -> goto eagain :: else fi }
        :: else
        fi
    :: true
    fi;
    d_step { n = 0; s = 0; t = 0; c = 0 }
    gate_close(h);
    if
    :: atomic { h != tail -> sleepers--; goto again }
    :: h == tail
    fi;
#ifndef M_KEVENT_LATE
    kevent = 0;
#endif
    c = 0;
    if
    :: atomic { (len(rcvq) == 0) && !FININ && (nb || got) -> sleepers--; goto eagain }
    :: atomic { (len(rcvq) == 0) && !FININ && !nb && !got -> r_in++ };
        atomic { KREAD -> r_in-- }
    :: KREAD
    fi;
    if
    :: atomic { (len(rcvq) == 0) && FININ -> sleepers--; if :: got -> goto done :: else -> goto eof fi }
    :: atomic { (len(rcvq) > 0) || !FININ ->
            do
            :: (len(rcvq) > 0) && got < want -> rcvq?b; Ck++; deliver(b); got++; b = 0; c++; TOOK
            :: got == want || (len(rcvq) == 0) -> break
            od }
    fi;
    C = C + c;
#ifdef M_KEVENT_LATE
    kevent = 0;
#endif
    atomic {
        sleepers--;
        if
        :: got == want -> goto done
        :: got == 0 -> goto again       /* another reader was faster */
        :: else
        fi
    };
eagain:
    atomic {
#ifndef HOSTILE
        assert(eseen[me])
#else
        skip
#endif
        ;
#ifdef ET
        if
        :: NONEMPTY -> lasth = 255      /* the ring holds bytes behind TCP bytes in flight: report them again */
        :: else
        fi
#endif
    };
done:
#ifdef ET_SHORT
    full_ = (got == want);
#else
    full_ = (got > 0);
#endif
    atomic { h = 0; s = 0; b = 0; c = 0; n = 0; t = 0; got = 0; want = 0; nb = 0; eseen[me] = 0 }
    /* opening */
    if
#ifdef M_OPEN_NO_SLEEPERS
    :: d_step { !g_open -> g_open = 1;
#else
    :: d_step { !g_open && sleepers == 0 -> g_open = 1;
#endif
#if !defined(M_NO_EPOCH) && !defined(M_NO_EPOCH_OPEN)
            cas_ok = 0
#endif
        }
    :: true
    fi;
    goto call;
eof:
#ifndef HOSTILE
    assert(next[0] == given[0] && next[1] == given[1]);     /* everything, then EOF */
#endif
    y_eof = 1;
stop:
broken:
    skip
}

#ifdef KILL_Y
proctype waiter() provided (!y_dead)
#else
proctype waiter()
#endif
{
    byte h;
end_w:
    do
    :: y_eof -> break
    :: !y_eof ->
#ifdef ET
        if
        :: atomic { edge && KREAD -> edge = 0;      /* the kernel asked with time-out 0: the gate stays as it is */
#ifndef M_NO_KEVENT
                kevent = 1;
#endif
                token = 1; goto end_w }
        :: true
        fi;
#endif
        gate_close(h);
#ifdef ET
        if
        :: atomic { h != tail && h != lasth -> lasth = h; goto event }
        :: h == tail || h == lasth
        fi;
        do
        :: atomic { edge -> edge = 0; if :: KREAD -> break :: else fi }
        :: atomic { !edge -> w_in++ };
endb:       atomic { edge -> w_in-- }
        od;
#else
#ifdef M_EXACT_POLL
        if
        :: atomic { h != tail && C == start -> goto event }
        :: h == tail || C != start
        fi;
#else
        if
        :: atomic { h != tail -> goto event }
        :: h == tail
        fi;
#endif
        w_in++;
        atomic { KREAD -> w_in-- }
#endif
#if defined(ET) && !defined(M_NO_KEVENT)
        kevent = 1;
#endif
event:
        skip;
#ifdef ET
        token = 1;
#endif
        d_step { sleepers--; h = 0 }
    od
}

/* lost wake-ups, as states that must not be reached */
proctype monitor() {
end_m:
    if
#ifdef ET
    :: atomic { w_in && !edge && (len(wire) == 0) && y_idle && !token && !y_eof &&
#ifdef ET_SHORT
        (NONEMPTY || (len(rcvq) > 0))   /* a FIN behind a short count is missed on plain TCP too */
#else
        (NONEMPTY || KREAD)
#endif
        -> assert(false) }
#else
    :: atomic { w_in && !KREAD && (len(wire) == 0) && NONEMPTY && y_idle == READERS -> assert(false) }
#endif
    :: atomic { late > RING -> assert(false) }
    :: atomic { r_in && !KREAD && (len(wire) == 0) && NONEMPTY && y_idle + r_in == READERS -> assert(false) }
    fi
}

#ifdef HOSTILE
proctype hostile() {
end_h:
    do
    :: d_step { g_open = 1; g_on = 1 }
    :: d_step { g_open = 1; g_on = 0 }
    :: g_on = 1
    :: g_head = 0 :: g_head = 1 :: g_head = 3 :: g_head = 200
    :: start = 0 :: start = 1 :: start = 200
    :: tail = 0 :: tail = 2 :: tail = 100
    :: (len(wire) < WIRE) && Ck + len(wire) + len(rcvq) < 3 -> wire!0
    :: fin_sent = 1
    od
}
#endif

init {
    atomic {
        run net();
#ifdef HOSTILE
        run hostile();
#else
        run X(0); run X(1);
        run monitor();
#endif
        run reader(0);
#if READERS > 1
        run reader(1);
#endif
#ifndef NO_WAITER
        run waiter();
#endif
#ifdef KILL_X
        run killx();
#endif
#ifdef KILL_Y
        run killy();
#endif
    }
}
