/*
 * agreed.pml - the roads of the agreed cut-over: one direction X -> Y over TCP and a remote ring (A3-A7), for spin 6.5
 *
 * The stream is the bytes 0, 1, 2 ... in the order in which send() took them. From the start on (start.pml) all that TCP carries is
 * frames; ring bytes come by RDMA writes, in order, with an immediate that raises head; a seam {ring offset, TCP offset} is
 * written before the first put behind a frame. Y takes a byte only where both counts say that it is the next one. X may return to
 * plain TCP at any moment; what neither road brings comes over the daemons' link (FILL, with its seams, into a ring of its own).
 *
 * Modelled: a header as two halves, of which the kernel may take one; short payloads (len is a promise about the stream); a full
 * TCP; the death of the SAN at any moment, with writes that land later or never; credits that come late or never; return
 * with its backlog, also when no program byte follows (return by the daemons: ret_at); END; FIN at any moment; the daemon's FILL in
 * five steps; X and Y that stay away for ever between two calls. -DKILL_X: X is killed at any moment. -DCHILD_X: a forked child also
 * sends, and never posts; -DCHILD_Y: one also receives, and sees no completions (the head its parent stored); with -DKILL_Y
 * the parent is killed at any moment, also with the lock. -DSESSIONS=2: after the return a second session begins. -DDAEMON_DIES.
 * Not modelled: grant and start (start.pml), sleeping (wake.pml: here a waiter is woken by every change), ring 1, torn records,
 * hostile peers, weak memory. Units: a header is 2 TCP units, any other byte 1; the reads of one pump step are two steps.
 *
 * Checks: bytes in order, none lost, none doubled (deliver); a header is never read as a byte nor a byte as a header; an honest
 * peer never looks broken; EOF only behind the last byte that send() took; and when nothing moves any more, whoever stays away,
 * Y has everything that send() took (monitor: so no frame waits for bytes that never come). Run with pan -E.
 */
#ifndef N
#define N 4		/* bytes the program has */
#endif
#ifndef RB
#define RB 3		/* ... of them at most through the ring */
#endif
#ifndef FR
#define FR 2		/* DATA and EMPTY frames */
#endif
#ifndef TQ
#define TQ 3		/* what TCP holds */
#endif
#ifndef SESSIONS
#define SESSIONS 1
#endif
#define RING	2
#ifndef SLOTS
#define SLOTS 2		/* seams */
#endif
#define NONE	255

/* on TCP */
#define BYTE	1
#define HEAD1	2	/* with kind, ring offset, len */
#define HEAD2	3
/* kinds */
#define DATA	1
#define RETURN	2
#define END	3
#define EMPTY	4

#define XF	0
#define XR	1
#define XE	2
#define XV	3
#define YF	0
#define YR	1
#define YE	2
#define YV	3

/* ---- kernel and wire ---- */
chan tcp = [TQ] of { byte, byte, byte, byte };
bool fin;
chan san = [3] of { byte, byte, byte, byte };	/* number of a seam or 0, ring offset, TCP offset, session */
bool dead;			/* the path: X will see an error, Y's credits do not go out */
bool lost;			/* ... and nothing lands any more */

typedef seam { byte r; byte t; byte n };

/* ---- X's end: struct wsd_rs, part 3 ---- */
byte xstate = XF;
byte txl;			/* tx_lock: 0, or 1 + its owner */
byte H;
byte posted, cursor;
byte tx[RING];
seam xseam[SLOTS];
byte seam_n, seam_t = NONE;	/* seams written; TCP offset of the last one */
byte fr_H = NONE, fr_r, fr_kind, fr_len;	/* the frame under way */
byte last_r;			/* ring offset of the last frame of which TCP has anything */
bool held[2];			/* descriptors: parent, child */
bool xdead;

/* ---- Y's end ---- */
byte ystate = YF;
byte rxl;
byte C, f_end;
byte hw_head, head, taken;
byte rx[RING];
seam ys[SLOTS];
byte seam_next = 1;
byte hd_C = NONE, hd_kind, hd_r, hd_len;	/* the header that is being taken */
byte ret_F, ret_C, ret_end;	/* the return: F', C behind its header, ring offset at which it is complete */
byte Y_S;
bool ydead, yeof;

/* ---- the daemons ---- */
byte fill[RING], filled;
seam fs[SLOTS];
byte ret_at = NONE;		/* return by the daemons' link: plain from this C on */
bool ask_at;
bool ask_end, end_valid;
byte end_posted;
bool ddead;

/* ---- ghosts ---- */
byte given, next;		/* bytes that send() took; bytes that Y has */
byte frames;
bool was_empty;		/* for a mutant: nothing but empty frames behind the last seam */
byte sess = 1;
bool left_alone;		/* the program has left (exec): it gives nothing before xstate is XV */
bool changed[2];
bool kept;			/* the parent's last descriptor was closed while a child had one */

#ifdef CHILD_Y
#define POKE	changed[0] = 1; changed[1] = 1
#else
#define POKE	changed[0] = 1
#endif
#ifdef DAEMON_DIES
#define BROKEN	goto reset
#else
#define BROKEN	assert(false)
#endif
#define deliver(b)	assert((b) == next); next++

#define TAKEN_OF	(H - fr_H)				/* units of the frame under way that TCP has */
#define BEGUN		(fr_H != NONE && H > fr_H)
#define HALF		(BEGUN && TAKEN_OF == 1)
#define PENDING		(BEGUN && TAKEN_OF < 2 + fr_len)
#define OPEN_PAYLOAD	(PENDING && TAKEN_OF >= 2)
#define MAX(a, b)	((a) > (b) -> (a) : (b))

/* one non-blocking send of one unit */
inline ksend(ka, kb, kc, kd) {
	if
	:: nfull(tcp) -> tcp!ka,kb,kc,kd; H++; ok = 1; POKE
	:: full(tcp) -> ok = 0
	fi
}

/* a header: what is stored before the kernel call, the call, and what is known behind it */
inline frame(kk, rr, nn) {
#ifdef M_PHANTOM_FRAME
	last_r = rr;
#endif
	fr_kind = kk; fr_r = rr; fr_len = nn; fr_H = H;
#ifdef M_RETURN_SKIPS_LAST_FRAME
	if
	:: kk == RETURN -> ksend(HEAD1, kk, cursor, nn)
	:: kk != RETURN -> ksend(HEAD1, kk, rr, nn)
	fi;
#else
	ksend(HEAD1, kk, rr, nn);
#endif
	if
	:: nfull(tcp) -> ksend(HEAD2, 0, 0, 0)
	:: full(tcp)
	fi;
	settle()
}

/* no frame is under way: its ring offset counts, but only if TCP has anything of it */
inline settle() {
	if
	:: fr_H != NONE && !PENDING ->
		if
		:: BEGUN && fr_kind != RETURN -> last_r = fr_r
		:: BEGUN && fr_kind == RETURN -> xstate = XV
		:: !BEGUN
		fi;
		fr_H = NONE; fr_kind = 0; fr_r = 0; fr_len = 0
	:: else
	fi
}

#ifdef M_REUSE_BEFORE_CURSOR
#define ROOM		(posted < hw_head + RING)
#elif defined(M_REUSE_BEFORE_COMPLETED)
#define ROOM		(posted < cursor + RING)
#else
#define ROOM		(posted < cursor + RING && posted < hw_head + RING)
#endif
#ifdef M_SEAM_NOT_WRITTEN
#define SEAM_DUE	(seam_n == 0)
#elif defined(M_EMPTY_NO_SEAM)
#define SEAM_DUE	(seam_n == 0 || (H != seam_t && !was_empty))
#else
#define SEAM_DUE	(H != seam_t)
#endif
#ifdef M_SEAM_SLOT_REUSED
#define SLOT_FREE	true
#else
#define SLOT_FREE	(xseam[seam_n % SLOTS].n == 0 || cursor > xseam[seam_n % SLOTS].r)
#endif
#define CAN_PUT		(posted < RB && !dead && ROOM && (!SEAM_DUE || SLOT_FREE) && len(san) <= 1)
#define LOCK		(txl == 0 || (txl == 1 && xdead)) && held[me]

proctype X(byte me) provided (!xdead || _pid != 1)
{
	bool ok;
	byte n;

	do
	/* return: the road broke, Y wants it, a second process sends; or the program leaves */
	:: atomic { LOCK && xstate == XF -> xstate = XR }
#ifdef LEAVE
	:: atomic { LOCK && xstate == XF && OPEN_PAYLOAD && fr_kind == DATA -> xstate = XR; left_alone = 1 }
#endif
	/* what is owed comes first */
	:: atomic { LOCK && HALF ->
#ifdef M_HEADER_REST_DROPPED
		fr_H = NONE
#else
		ksend(HEAD2, 0, 0, 0); settle()
#endif
		}
	:: atomic { LOCK && OPEN_PAYLOAD && fr_kind == RETURN -> ksend(BYTE, tx[(fr_r + TAKEN_OF - 2) % RING], 0, 0); settle() }
	:: atomic { LOCK && OPEN_PAYLOAD && fr_kind == DATA && given < N && !left_alone -> ksend(BYTE, given, 0, 0); given = given + ok; settle() }
#ifndef M_NO_RETURN_AT
	:: atomic { LOCK && OPEN_PAYLOAD && fr_kind == DATA && xstate == XR -> ask_at = 1 }
#endif
	:: atomic { LOCK && !PENDING && xstate == XR ->
#ifdef M_RETURN_F_BEYOND
		n = MAX(hw_head, last_r);		/* what was completed, not what Y has said */
#else
		n = MAX(cursor, last_r);
#endif
		frame(RETURN, n, posted - n);
		n = 0 }
	/* plain */
	:: atomic { LOCK && !PENDING && xstate == XV && given < N -> ksend(BYTE, given, 0, 0); given = given + ok }
	/* framed: by either road */
	:: atomic { LOCK && !PENDING && xstate == XF && frames < FR && given < N && nfull(tcp) ->
		was_empty = 0; frames++; frame(DATA, posted, 1) }
	:: atomic { LOCK && !PENDING && xstate == XF && frames < FR && N - given > 1 && nfull(tcp) ->
		was_empty = 0; frames++; frame(DATA, posted, 2) }
#ifdef EMPTIES
	:: atomic { LOCK && !PENDING && xstate == XF && frames < FR && nfull(tcp) ->
		was_empty = (H == seam_t); frames++; frame(EMPTY, posted, 0) }
#endif
#ifdef M_PHANTOM_FRAME
	:: atomic { LOCK && !PENDING && xstate == XF && frames < FR && given < N && full(tcp) -> last_r = posted }	/* stored, and the kernel took nothing */
#endif
	:: atomic { LOCK && !PENDING && xstate == XF && me == 0 && CAN_PUT && given < N ->
		txl = me + 1;
		n = 0;
		tx[posted % RING] = given;
		if
		:: SEAM_DUE ->
			seam_n++;
			seam_t = H;
			n = seam_n;
			xseam[(seam_n - 1) % SLOTS].r = posted; xseam[(seam_n - 1) % SLOTS].t = H; xseam[(seam_n - 1) % SLOTS].n = seam_n
		:: else
		fi;
		posted++; given++ };
		/* posted has moved: only a dead road, or X's death, keeps it from being posted */
		atomic {
			if
			:: n > 0 -> san!n,posted - 1,seam_t,sess
			:: else
			fi;
			san!0,posted - 1,0,sess; n = 0; txl = 0 }
	/* close(): END only if this is the end of the stream for certain, and only if the kernel takes it now */
	:: atomic { LOCK && !left_alone ->
		if
#ifdef M_END_BY_PARENT
		:: xstate == XF && !PENDING && nfull(tcp) -> frame(END, posted, 0); xstate = XE
		:: xstate != XF || PENDING || full(tcp)
#else
		:: xstate == XF && !PENDING && nfull(tcp) && !held[1 - me] && !kept -> frame(END, posted, 0); xstate = XE
		:: xstate != XF || PENDING || full(tcp) || held[1 - me] || kept
#endif
		fi;
		kept = kept || held[1 - me];
		held[me] = 0;
		assert(xstate != XE || !held[1 - me]);		/* it ends while somebody can still send */
		if :: !held[1 - me] -> fin = 1; POKE :: else fi;
		break }
	:: !left_alone -> break		/* computes for ever */
	od
}

#ifdef KILL_X
proctype killer_x() { atomic { xdead = 1; held[0] = 0; dead = 1; if :: !held[1] -> fin = 1; POKE :: else fi } }
#endif
#ifdef KILL_Y
proctype killer_y() { atomic { ydead = 1; dead = 1; lost = 1 } }
#endif

/* X's adapter, the path and Y's adapter */
proctype wire()
{
	byte n, r, t, s;

end:	do
	:: atomic { !lost && nempty(san) ->
		san?n,r,t,s;
		if
#ifdef M_KEEP_KEY
		:: n > 0 -> ys[(n - 1) % SLOTS].r = r; ys[(n - 1) % SLOTS].t = t; ys[(n - 1) % SLOTS].n = n
		:: n == 0 -> rx[r % RING] = tx[r % RING]; if :: s == sess -> hw_head = r + 1 :: else fi
#else
		:: n > 0 && s == sess -> ys[(n - 1) % SLOTS].r = r; ys[(n - 1) % SLOTS].t = t; ys[(n - 1) % SLOTS].n = n
#ifdef M_STALE_IMM
		:: n == 0 && s != sess -> hw_head = r + 1
#else
		:: n == 0 && s != sess
#endif
		:: n == 0 && s == sess -> rx[r % RING] = tx[r % RING]; hw_head = r + 1
		:: n > 0 && s != sess
#endif
		fi;
		n = 0; r = 0; t = 0; s = 0;
		POKE }
#ifndef SAN_LIVES
	:: atomic { !dead -> dead = 1 }
#endif
	:: atomic { dead && !lost -> lost = 1 }
	od
}

inline look_at_seam() {
		if
#ifdef M_SEAM_NOT_CHECKED
		:: true -> sr = NONE; st = 0
#else
		:: ys[(seam_next - 1) % SLOTS].n == seam_next -> sr = ys[(seam_next - 1) % SLOTS].r; st = ys[(seam_next - 1) % SLOTS].t
		:: ys[(seam_next - 1) % SLOTS].n != seam_next && fs[(seam_next - 1) % SLOTS].n == seam_next ->
			sr = fs[(seam_next - 1) % SLOTS].r; st = fs[(seam_next - 1) % SLOTS].t
		:: else -> sr = NONE; st = 0
#endif
		fi
}

inline load_counts() {
	if :: me == 0 && head < hw_head -> head = hw_head; POKE; changed[me] = 0 :: else fi;	/* only who has the queue pair sees completions */
	h = MAX(head, filled)
}

/* stored first, then taken: one kernel call takes the header, and payload if there is any */
inline take_header() {
	hd_kind = a; hd_r = b; hd_len = c; hd_C = C;
	tcp?_,_,_,_; tcp?_,_,_,_; C = C + 2
}

#ifdef M_FILL_INTO_RX_RING
#define FILLED	rx
#else
#define FILLED	fill
#endif
#define BACKLOG	(ret_F + (C - ret_C) < ret_end)

/* what a header that was taken means; also done by who takes the lock over */
inline apply() {
	if
	:: hd_kind == RETURN ->
#ifdef M_NO_DROP
		ret_F = taken;
#else
		ret_F = hd_r;
#endif
		ret_C = hd_C + 2;
#ifdef M_RETURN_NO_LEN
		ret_end = taken;
#else
		ret_end = hd_r + hd_len;
#endif
		ystate = YR
	:: hd_kind == END -> ystate = YE
	:: hd_kind == DATA || hd_kind == EMPTY -> f_end = hd_C + 2 + hd_len
	fi;
	hd_C = NONE; hd_kind = 0; hd_r = 0; hd_len = 0
}

#ifdef M_HEADER_EATEN_EARLY
#define EARLY	true
#else
#define EARLY	(b == taken)
#endif

#ifdef CHILD_X
#define PARENT_Y 3
#else
#define PARENT_Y 2
#endif
proctype Y(byte me) provided (!ydead || _pid != PARENT_Y)
{
	byte h, k, a, b, c, sr, st;
	bool got;

	do
	:: atomic { (rxl == 0 || (rxl == 1 && ydead)) && changed[me] && !yeof ->
		rxl = me + 1; changed[me] = 0;
		/* the lock of the dead: a header that left the kernel counts */
#ifdef M_HEADER_NOT_STORED
		hd_C = NONE;
#endif
		if :: hd_C != NONE && C > hd_C -> apply() :: else fi;
#ifdef M_SEAM_LOOKED_AT_FIRST
		look_at_seam() };
		atomic { load_counts();
#else
		/* the counts first, then the seam */
		load_counts() };
		atomic { look_at_seam();
#endif
		got = 1;
		if
		/* ---- framed ---- */
		:: ystate == YF && C < Y_S && nempty(tcp) -> tcp?k,a,_,_; C++; assert(k == BYTE); deliver(a)
		:: ystate == YF && C < Y_S && empty(tcp) -> got = 0
		:: ystate == YF && C >= Y_S && f_end > C && nempty(tcp) -> tcp?k,a,_,_; C++; assert(k == BYTE); deliver(a)
		:: ystate == YF && C >= Y_S && f_end > C && empty(tcp) ->
			if
			:: fin -> yeof = 1				/* X ended inside a frame: nothing was posted behind it */
			:: !fin -> got = 0
			fi
		:: ystate == YF && C >= Y_S && f_end <= C && taken < h && taken < sr ->
			if
			:: taken < head -> a = rx[taken % RING]
			:: taken >= head -> a = FILLED[taken % RING]
			fi;
			deliver(a); taken++
		:: ystate == YF && C >= Y_S && f_end <= C && taken == sr && sr < h && C >= st ->
			if
			:: C == st -> seam_next++
			:: C > st -> BROKEN
			fi
		:: ystate == YF && C >= Y_S && f_end <= C && !(taken < h && taken < sr) && !(taken == sr && sr < h && C >= st) ->
			if
			:: C == ret_at -> ystate = YV
			:: C != ret_at && len(tcp) >= 2 ->
				tcp?<k,a,b,c>;
				assert(k == HEAD1);
				if
				:: a == RETURN ->
					if :: b > taken -> BROKEN :: else fi;
					take_header()
				:: a != RETURN && b < taken -> BROKEN
				:: a != RETURN && b >= taken && EARLY -> take_header()
				:: a != RETURN && b > taken && !EARLY -> got = 0	/* behind: waits for the ring or for FILL */
				fi
			:: C != ret_at && len(tcp) < 2 && !fin -> got = 0
			:: C != ret_at && len(tcp) < 2 && fin ->
#ifdef M_FIN_NO_ASK
				yeof = 1
#else
				if
				:: !ask_end -> ask_end = 1; got = 0
#ifdef M_END_NOT_COMPARED
				:: ask_end && end_valid -> yeof = 1
#else
				:: ask_end && end_valid && taken == end_posted -> yeof = 1
				:: ask_end && end_valid && taken != end_posted -> got = 0
#endif
				:: ask_end && !end_valid -> got = 0
				fi
#endif
			fi
		/* ---- the return: what Y has is dropped, the rest comes by TCP or by FILL, whichever is first ---- */
		:: ystate == YR && BACKLOG && nempty(tcp) ->
			tcp?k,a,_,_;
			assert(k == BYTE);
			if
			:: ret_F + (C - ret_C) >= taken -> deliver(a); taken++
			:: else
			fi;
			C++
#ifdef M_READ_RING_AFTER_RETURN
		:: ystate == YR && BACKLOG && taken < head -> deliver(rx[taken % RING]); taken++; ret_F = taken
#endif
#ifndef M_NO_FILL_IN_RETURN
		:: ystate == YR && BACKLOG && taken < ret_end && taken < filled -> deliver(FILLED[taken % RING]); taken++
#endif
		:: ystate == YR && BACKLOG && empty(tcp) && !(taken < ret_end && taken < filled) ->
			if
			:: fin && taken == ret_end -> yeof = 1
			:: else -> got = 0
			fi
		:: ystate == YR && !BACKLOG -> ystate = YV
		/* ---- plain ---- */
		:: ystate == YV && nempty(tcp) -> tcp?k,a,_,_; C++; assert(k == BYTE); deliver(a)
		:: ystate == YV && empty(tcp) ->
			if
			:: fin -> yeof = 1
			:: !fin -> got = 0
			fi
		:: ystate == YE && empty(tcp) ->
			if
			:: fin -> yeof = 1
			:: !fin -> got = 0
			fi
		:: ystate == YE && nempty(tcp) -> BROKEN
		fi;
		if :: yeof && got -> assert(next == given) :: else fi;
		if :: got -> POKE :: else fi;
		k = 0; a = 0; b = 0; c = 0; h = 0; sr = 0; st = 0;
#ifdef KILL_Y
		if :: hd_C == NONE -> rxl = 0; got = 0 :: else fi };
		/* a reader may die here, with the header gone from the kernel */
		if
		:: atomic { got -> if :: hd_C != NONE -> apply() :: else fi; rxl = 0; got = 0 }
		:: !got
		fi
#else
		if :: hd_C != NONE -> apply() :: else fi;
		rxl = 0; got = 0 }
#endif
	:: atomic { me == 0 && !dead && cursor < taken && ystate == YF -> cursor = taken }	/* a credit, now or later */
	:: atomic { yeof -> break }
#ifdef CHILD_Y
	:: me == 0 -> break				/* the parent stays away for ever, its queue pair alive */
#endif
	od;
#ifdef DAEMON_DIES
reset:	skip
#endif
}

/* both daemons: FILL, the end, return by the link */
#define HAS_IT	(ystate == YF -> head : taken)		/* HEAD_IS */
proctype daemons() provided (!ddead)
{
	byte c, p, i, s = 1;
	byte m[RING];
	seam ms[SLOTS];

end:	do
	:: d_step { posted > cursor && posted > filled && posted > HAS_IT && ystate != YV ->
			c = cursor; p = posted; s = sess;
#ifdef M_FILL_NO_RECHECK
		};
		d_step {
#endif
			m[0] = tx[0]; m[1] = tx[1];
			ms[0].r = xseam[0].r; ms[0].t = xseam[0].t; ms[0].n = xseam[0].n;
#if SLOTS > 1
			ms[1].r = xseam[1].r; ms[1].t = xseam[1].t; ms[1].n = xseam[1].n
#endif
			};
		d_step {
#ifndef M_FILL_NO_RECHECK
			c = MAX(c, cursor);
#endif
#ifndef M_FILL_OLD_SESSION
			if :: s != sess -> p = 0 :: else fi;	/* its id is known no more */
#endif
			i = MAX(c, filled);			/* Y's daemon: what is there already is skipped */
#ifdef M_FILL_INTO_RX_RING
		};
		d_step {
#endif
#ifndef M_FILL_WITHOUT_SEAMS
			if :: ms[0].n > 0 && ms[0].r >= c && ms[0].r < p -> fs[0].r = ms[0].r; fs[0].t = ms[0].t; fs[0].n = ms[0].n :: else fi;
#if SLOTS > 1
			if :: ms[1].n > 0 && ms[1].r >= c && ms[1].r < p -> fs[1].r = ms[1].r; fs[1].t = ms[1].t; fs[1].n = ms[1].n :: else fi;
#endif
#endif
			do
			:: i < p ->
				FILLED[i % RING] = m[i % RING];
				i++
			:: i >= p -> break
			od;
			if :: p > filled -> filled = p :: else fi;
			c = 0; p = 0; i = 0; m[0] = 0; m[1] = 0;
			ms[0].r = 0; ms[0].t = 0; ms[0].n = 0;
#if SLOTS > 1
			ms[1].r = 0; ms[1].t = 0; ms[1].n = 0;
#endif
			POKE }
	:: atomic { ask_end && !end_valid -> end_posted = posted; end_valid = 1; POKE }
	:: atomic { ask_at && xstate == XR && OPEN_PAYLOAD && fr_kind == DATA -> ret_at = fr_H + 2 + fr_len; ask_at = 0; xstate = XV; left_alone = 0; POKE }
#ifdef DAEMON_DIES
	:: ddead = 1
#endif
	od
}

#if SESSIONS > 1
/* both directions of the first session have ended: new memory, keys, numbers */
proctype cut_over()
{
	atomic { xstate == XV && ystate == YV && !PENDING && txl == 0 && rxl == 0 && held[0] ->
		sess = 2;
		posted = 0; cursor = 0; hw_head = 0; head = 0; taken = 0; filled = 0;
		seam_n = 0; seam_t = NONE; seam_next = 1; fr_H = NONE; last_r = 0; ret_at = NONE; ask_at = 0; left_alone = 0;
		xseam[0].n = 0; fs[0].n = 0; ys[0].n = 0;
#if SLOTS > 1
		xseam[1].n = 0; fs[1].n = 0; ys[1].n = 0;
#endif
		frames = 0; was_empty = 0; dead = 0; lost = 0;
		Y_S = H; f_end = 0;
		xstate = XF; ystate = YF; POKE }
}
#endif

proctype monitor()
{
end:	timeout;
#ifdef DAEMON_DIES
	assert(ddead || next == given)
#else
	assert(next == given && (!fin || yeof));
	assert(!left_alone)
#endif
}

init {
	atomic {
		held[0] = 1; POKE;
		run X(0);
#ifdef CHILD_X
		held[1] = 1;
		run X(1);
#endif
		run Y(0);
#ifdef CHILD_Y
		run Y(1);
#endif
		run wire();
		run daemons();
#ifdef KILL_X
		run killer_x();
#endif
#ifdef KILL_Y
		run killer_y();
#endif
#if SESSIONS > 1
		run cut_over();
#endif
		run monitor()
	}
}
