/*
 * plain.pml - a direction that returns to TCP inside an open frame (A4's `plain`), for spin 6.5
 *
 * X has a frame open whose payload the program may never send, and somebody waits for the return: a call of X's that only TCP has, or Y
 * (credit with NOW). X writes plain{end of the frame} into Y's control page and reads it back, or has the daemons store the same number at
 * Y's end; until one of both is known to be there X sends nothing. Y is plain where the frame it is in ends there.
 *
 * Modelled: ring bytes before, between and behind frames, frames of 1 or 2 bytes with payload that comes late or never, a full TCP; writes that land
 * late or never, the path's death at any moment, noticed by either end when it likes; another read-back that is under way (-DOUTQ: SIOCOUTQ's); credit that
 * cannot be told, comes late, is followed by other credit; the daemons' want-return; RETURN with its backlog where nobody waits; an X that gives no more bytes. -DAWAY: an X that calls no more at any moment. -DCHILD_X: so does the parent of a forked child that sends and waits; it sees no completions.
 * -DCLOSES: close at any moment. -DDAEMON_DIES: the link is gone at any moment, which together with the path's death is a reset, and nothing else is.
 * Not modelled: grant and start (start.pml), headers in parts, END, dead processes, a forked Y (agreed.pml), sleeping, what is kept back (batch.pml).
 * A put carries its own seam. Each X is in its call until it is done: time-outs of callers are not modelled.
 *
 * Checks: bytes in order, none lost, none doubled; a header is never read as a byte nor a byte as a header; EOF only behind the last byte; and
 * when nothing moves any more: Y has all that send() took, nobody waits who calls (X's callers, and Y if its wish could be told).
 */
#ifndef N
#define N 4		/* bytes the program has */
#endif
#ifndef RB
#define RB 1		/* ... of them at most through the ring */
#endif
#ifndef FR
#define FR 2		/* frames */
#endif
#ifdef CHILD_X
#define AWAY
#endif
#define TQ	2
#define NONE	255

/* on TCP */
#define BYTE	1
#define HEAD	2	/* with kind, ring offset, len */
#define DATA	1
#define RETURN	2
/* on the SAN */
#define PUT	1	/* ring offset, TCP offset */
#define PLAIN	2
#define FETCH	3

#define XF	0
#define XR	1
#define XV	2
#define XE	3
#define YF	0
#define YR	1
#define YV	2

chan tcp = [TQ] of { byte, byte, byte, byte };
chan san = [3] of { byte, byte, byte };
bool dead, lost;	/* the path: nothing is completed any more; nothing lands any more */
bool fin;

/* ---- X's end: session memory ---- */
byte xstate = XF;
byte H, posted, cursor;
byte tx[RB], tx_t[RB];
byte fr_end, fr_kind, fr_at;	/* the last frame: ends at, is, ring offset of a RETURN's first byte */
byte plain_H = NONE;
bool x_return;			/* the daemons: return, please */
bool plain_there;		/* ... the peer has the number */
bool x_close;
/* ... of the process with the queue pair */
byte asked, fetched, fetch_want;
bool outq;
bool err;			/* its device says so */

/* ---- X's control page: Y's credit ---- */
byte cr_cursor;
bool cr_now, cr_ret;

/* ---- Y's end ---- */
byte ystate = YF;
byte C, f_end, head, filled, taken;
byte rx[RB], rx_t[RB];
byte plain_w = NONE;		/* by the card */
byte plain_at = NONE;		/* by the daemon */
byte ret_F, ret_C, ret_end;
bool yeof;
bool y_now, said;		/* Y cannot wait; the word for it went out */
bool changed;
/* credit on its way */
bool out;
byte out_cursor;
bool out_now;

/* ---- daemons ---- */
bool want_asked;		/* Y: WANT_RETURN */
bool ask_plain, ddead;

/* ---- ghosts ---- */
byte given, next, frames;
bool reset;
bool calls[2];			/* X's processes: not away for ever */
bool waits[2];			/* in a call that needs the direction plain */
bool quiet;			/* the program gives no more bytes by send() */

#define POKE		changed = 1
#define deliver(b)	assert((b) == next); next++
#define OPEN		(H < fr_end)
#define DATA_OPEN	(OPEN && fr_kind == DATA)
#define SAID		(plain_H != NONE)
#ifdef M_PAYLOAD_MEANWHILE
#define MAY_GIVE	(given < N && !quiet && !waits[me] && !x_close)
#else
#define MAY_GIVE	(given < N && !quiet && !waits[me] && !x_close && !(xstate == XR && SAID))
#endif
#define MINE		(me == 0)
#define ROAD		(MINE && !err)

inline tell(ka, kb, kc, kd) {
	tcp!ka,kb,kc,kd; H++; POKE
}

/* X is plain: the peer is known to be, or to become it behind that frame */
inline x_done() {
	xstate = XV
}

/* now_plain is the process's own: its own call, or what Y's credit says */
#ifdef M_NOT_HEARD
#define HEARD		(cr_now && now)
#else
#define HEARD		cr_now
#endif
#define NEEDED		(waits[me] || now || HEARD)

proctype X(byte me)
{
	byte n;
	bool now;

	do
	/* ---- the program ---- */
	:: atomic { MINE && xstate == XF && !OPEN && posted < RB && MAY_GIVE && !err && len(san) < 2 ->
		tx[posted] = given; tx_t[posted] = H;
		san!PUT,posted,H;
		posted++; given++ }
	:: atomic { xstate == XF && !OPEN && frames < FR && MAY_GIVE && nfull(tcp) ->
		if
		:: fr_end = H + 2
		:: fr_end = H + 3
		fi;
		frames++; fr_kind = DATA; tell(HEAD, DATA, posted, fr_end - H - 1) }
	:: atomic { xstate != XV && DATA_OPEN && MAY_GIVE && nfull(tcp) -> tell(BYTE, given, 0, 0); given++ }
	:: atomic { xstate == XV && MAY_GIVE && nfull(tcp) -> tell(BYTE, given, 0, 0); given++ }
#ifndef WISH
	:: atomic { !waits[me] && xstate != XV && !x_close -> waits[me] = 1 }		/* a call that only TCP has */
#endif
	:: atomic { !quiet -> quiet = 1 }
#ifdef OUTQ
	:: atomic { MINE && !outq && !err && len(san) < 3 -> outq = 1; san!FETCH,0,0; asked++ }
#endif
#ifdef CLOSES
	/* close: RETURNING with payload open can say nothing more; Y finds FIN inside the frame */
	:: atomic { !x_close && (xstate == XV || DATA_OPEN) && !waits[0] && !waits[1] && !calls[1 - me] ->
		x_close = 1; fin = 1; if :: xstate != XV -> xstate = XE :: else fi; POKE }
#endif
#ifdef AWAY
	:: atomic { MINE && calls[me] && !waits[me] -> calls[me] = 0; break }	/* computes for ever */
#endif
	/* ---- what is due ---- */
	:: atomic { MINE && dead && !err -> err = 1 }
	:: atomic { waits[me] && (xstate == XV || xstate == XE) -> waits[me] = 0 }
	:: atomic { cursor < cr_cursor -> cursor = cr_cursor }
	:: atomic { xstate == XF && (err || x_return || cr_ret || waits[me] || me == 1) ->
		xstate = XR;
		now = cr_now }
	:: atomic { xstate == XR && !OPEN && fr_kind != RETURN && nfull(tcp) ->
		fr_kind = RETURN; fr_at = cursor; fr_end = H + 1 + posted - cursor; tell(HEAD, RETURN, cursor, posted - cursor) }
	:: atomic { xstate == XR && OPEN && fr_kind == RETURN && nfull(tcp) -> tell(BYTE, tx[posted - (fr_end - H)], 0, 0) }
	:: atomic { xstate == XR && !OPEN && fr_kind == RETURN -> x_done() }
	/* return_at(): said by the road ... */
	:: atomic { xstate == XR && DATA_OPEN && !SAID && NEEDED && ROAD && len(san) < 2 ->
		plain_H = fr_end;
		asked++;
#ifdef M_FETCH_ANY
		fetch_want = fetched + 1;
#else
		fetch_want = asked;
#endif
		san!PLAIN,fr_end,0; san!FETCH,0,0 }
#ifdef M_NO_READBACK
	:: atomic { xstate == XR && SAID && MINE -> x_done() }
#else
	:: atomic { xstate == XR && SAID && MINE && fetch_want && fetched >= fetch_want -> x_done() }
#endif
	/* ... or, without a road, by the daemons */
#ifdef M_FAIL_PLAIN
	:: atomic { xstate == XR && SAID && MINE && err && !ask_plain -> x_done() }
#elif defined(M_FAIL_RETURNS)
	:: atomic { xstate == XR && SAID && MINE && err && !ask_plain -> plain_H = NONE; waits[me] = 0; now = 0 }
#elif defined(M_FAIL_RESETS)
	:: atomic { xstate == XR && SAID && MINE && err && !ask_plain -> reset = 1; xstate = XE }
#elif defined(M_CHILD_WAITS)
	:: atomic { xstate == XR && SAID && MINE && err && !ask_plain -> ask_plain = 1 }
#else
	:: atomic { xstate == XR && SAID && !ROAD && !ask_plain -> ask_plain = 1 }
#endif
#ifndef M_ASK_ONLY_SAID
	:: atomic { xstate == XR && DATA_OPEN && !SAID && NEEDED && !ROAD -> plain_H = fr_end; ask_plain = 1 }
#endif
	:: atomic { xstate == XR && SAID && ask_plain && plain_there -> x_done() }
	:: atomic { xstate == XR && SAID && ask_plain && !plain_there && ddead && !ROAD -> reset = 1; xstate = XE }	/* in 3 s */
	:: atomic { reset || x_close -> calls[me] = 0; break }
	od
}

/* X's adapter, the path, Y's adapter; and Y's credit the other way */
proctype wire()
{
	byte k, a, b;

end:	do
	:: atomic { !lost && nempty(san) ->
		san?k,a,b;
		if
		:: k == PUT -> rx[a] = tx[a]; rx_t[a] = b; head = a + 1
		:: k == PLAIN -> plain_w = a
		:: k == FETCH && !dead -> fetched++
		:: k == FETCH && dead
		fi;
		k = 0; a = 0; b = 0;
		POKE }
	:: atomic { !lost && out -> cr_cursor = out_cursor; cr_now = out_now; cr_ret = cr_ret || out_now; out = 0; out_cursor = 0; out_now = 0 }
#ifndef SAN_LIVES
	:: atomic { !dead -> dead = 1 }
#endif
	:: atomic { dead && !lost -> lost = 1 }
	od
}

inline daemons_store() { plain_at = plain_H; POKE }

proctype daemons() provided (!ddead)
{
	byte i;

end:	do
	/* FILL: asked by X, or the sweep of who does not call */
	:: d_step { posted > filled && posted > (ystate == YF -> head : taken) && ystate != YV ->
			i = filled;
			do
			:: i < posted -> if :: i >= head -> rx[i] = tx[i]; rx_t[i] = tx_t[i] :: else fi; i++
			:: i >= posted -> break
			od;
			filled = posted; i = 0;
			POKE }
	:: atomic { want_asked && !x_return -> x_return = 1 }
#ifdef M_THERE_EARLY
	:: atomic { ask_plain && !plain_there -> plain_there = 1 };
		atomic { daemons_store() }
#else
	:: atomic { ask_plain && plain_at == NONE -> daemons_store() };
		atomic { plain_there = 1 }
#endif
#ifdef DAEMON_DIES
	:: ddead = 1
#endif
	od
}

#define BACKLOG	(ret_F + (C - ret_C) < ret_end)
#ifdef M_ANY_FRAME
#define PLAIN_FROM(w)	((w) != NONE && C <= (w))
#elif defined(M_AT_END_ONLY)
#define PLAIN_FROM(w)	((w) != NONE && (w) == f_end && C == f_end)
#else
#define PLAIN_FROM(w)	((w) != NONE && (w) == f_end && C <= f_end)
#endif

proctype Y()
{
	byte k, a, b, c, h;
	bool got, pl;

	do
	:: atomic { changed && !yeof ->
		changed = 0;
		/* what the words say, then the kernel */
		pl = (ystate == YF && (PLAIN_FROM(plain_w) || PLAIN_FROM(plain_at)));
		h = (head > filled -> head : filled) };
		atomic {
		got = 1;
		if
		:: ystate == YF && pl -> ystate = YV
		:: ystate == YF && !pl && C < f_end && nempty(tcp) -> tcp?k,a,_,_; C++; assert(k == BYTE); deliver(a)
		:: ystate == YF && !pl && C < f_end && empty(tcp) -> if :: fin -> yeof = 1 :: !fin -> got = 0 fi
		:: ystate == YF && !pl && C >= f_end && taken < h && C == rx_t[taken] -> deliver(rx[taken]); taken++
		:: ystate == YF && !pl && C >= f_end && !(taken < h && C == rx_t[taken]) && nempty(tcp) ->
			tcp?<k,a,b,c>;
			assert(k == HEAD);
			if
			:: a == RETURN ->
				tcp?_,_,_,_; C++;
				assert(b <= taken);
				ret_F = b; ret_C = C; ret_end = b + c; ystate = YR
			:: a == DATA && b == taken -> tcp?_,_,_,_; C++; f_end = C + c
			:: a == DATA && b > taken -> got = 0
			:: a == DATA && b < taken -> assert(false)
			fi
		:: ystate == YF && !pl && C >= f_end && !(taken < h && C == rx_t[taken]) && empty(tcp) -> got = 0
		:: ystate == YR && BACKLOG && nempty(tcp) ->
			tcp?k,a,_,_; assert(k == BYTE);
			if :: ret_F + (C - ret_C) >= taken -> deliver(a); taken++ :: else fi;
			C++
		:: ystate == YR && BACKLOG && empty(tcp) && taken < ret_end && taken < filled -> deliver(rx[taken]); taken++
		:: ystate == YR && BACKLOG && empty(tcp) && !(taken < ret_end && taken < filled) ->
			if :: fin && taken >= ret_end -> yeof = 1 :: else -> got = 0 fi
		:: ystate == YR && !BACKLOG -> ystate = YV
		:: ystate == YV && nempty(tcp) -> tcp?k,a,_,_; C++; assert(k == BYTE); deliver(a)
		:: ystate == YV && empty(tcp) -> if :: fin -> yeof = 1 :: !fin -> got = 0 fi
		fi;
		if :: yeof -> assert(next == given) :: else fi;
		if :: got -> POKE :: else fi;
		k = 0; a = 0; b = 0; c = 0; h = 0; pl = 0; got = 0 }
#ifdef WISH
	/* credit */
	:: atomic { !err && !out && out_cursor < taken && cr_cursor < taken && ystate == YF ->
		out = 1; out_cursor = taken;
#ifdef M_CREDIT_TAKES_BACK
		out_now = 0
#else
		out_now = y_now
#endif
		}
	/* agreed_rx_plain(): the card may have no room for the word just now */
	:: atomic { !y_now && ystate == YF -> y_now = 1; want_asked = 1;
#ifdef M_SAID_ONCE
		if :: !out -> out = 1; out_cursor = taken; out_now = 1 :: true fi; said = 1
#endif
		}
	:: atomic { y_now && !said && !out && !dead -> said = 1; out = 1; out_cursor = taken; out_now = 1 }
#endif
	:: atomic { !want_asked && ystate == YF -> want_asked = 1 }		/* it asks without need, too */
	:: atomic { yeof || reset -> break }
	od
}

proctype monitor()
{
end:	timeout;
	assert(!reset || (ddead && dead));
	assert(ddead || reset || (next == given && (!fin || yeof)));
	assert(reset || !waits[0] || (ddead && dead));
	assert(reset || !waits[1] || (ddead && dead));
	assert(!(SAID && xstate == XR && (calls[0] || calls[1])) || (ddead && dead));	/* nobody may send, for ever */
	assert(!y_now || dead || ddead || reset || yeof || !calls[0] || ystate == YV)
}

init {
	atomic {
		calls[0] = 1; POKE;
		run X(0);
#ifdef CHILD_X
		calls[1] = 1;
		run X(1);
#endif
		run wire();
		run daemons();
		run Y();
		run monitor()
	}
}
