/*
 * start.pml - grant, start and decision of the agreed cut-over (A1, A2, plan 2.3), for spin 6.5
 *
 * Y grants over no sleeper; X writes Start{S} and sends nothing until an RDMA read behind the write has completed; until Y has seen
 * Start it reads no more than was there before it looked. If X does not learn whether Start arrived, an unregistered word of Y's end
 * decides: Y swaps it to TAKEN before it believes Start, Y's daemon to VOID when X's asks; Y itself only when its queue pair is gone.
 *
 * Modelled: X with two sending threads, one of which starts when it likes; TCP units that are plain, frame or return; the write, its
 * completion (which may come before it is visible), the read behind it, the path's death at any moment, a write that lands late; the daemons'
 * answer; Y with two threads that receive without blocking, one of which grants, and may withdraw the grant (or find its queue pair
 * broken), which the daemons tell X before or after it starts (x_return; Y may ask for the return as well when it
 * has taken Start); a device that never answers, given up after a while (-DSILENT); X killed at any moment (-DKILL_X); the second X thread as a forked child, which sees no completions, with a parent that may stay away
 * for ever (-DCHILD_X); the second Y thread as a forked child (-DCHILD_Y: it never posts, stops no queue pair).
 * Not modelled: what the frames say (agreed.pml), sleeping (wake.pml), torn records, unreachable daemons (then: reset), weak memory.
 *
 * Checks: no frame is read as plain, nothing plain as a frame; EOF in the plain state only if X never put into the ring; when nothing moves
 * any more Y has all of TCP, and a sender that still wants to send is not stuck (monitor). Run with pan -E.
 */
#ifndef NA
#define NA 2		/* units of sender 0 */
#endif
#ifndef NB
#define NB 1
#endif
#define TQ	3

#define PLAIN	0
#define FRAME	1
#define RETURN	2

#define XP	0
#define XS	1
#define XD	2
#define XF	3
#define XR	4
#define XV	5
#define YP	0
#define YG	1
#define YF	2
#define YV	3
#define UNSET	0
#define TAKEN	1
#define VOID	2

chan tcp = [TQ] of { byte };
bool fin;
/* ---- X ---- */
byte xstate = XP, in_send, H;
bool txl;
bool granted;			/* Y's word in X's memory */
bool xdead;
/* ---- adapters ---- */
bool posted, visible;		/* Start: on its way; in Y's memory */
bool wc, rd_ok, dead;		/* the write's completion, the read's; no more answers */
bool y_qp = 1;			/* off: nothing lands any more */
byte S;
/* ---- Y ---- */
byte ystate = YP, decide = UNSET, sleepers, C, Y_S;
bool rxl, yeof;
/* ---- daemons ---- */
bool ask;
byte decided;
bool tell, x_return;		/* Y: WANT_RETURN; X has heard of it */
bool silent;			/* X's device answers no more, and does not say so */
/* ---- ghosts ---- */
bool ring_used;
bool stuck[2];			/* a sender that wants to send and cannot yet */

#ifdef CHILD_X
#define SEES(i)	((i) == 0)
#else
#define SEES(i)	true
#endif

#ifdef SILENT
#define TIME_OUT	(xstate == XS && posted)
#else
#define TIME_OUT	false
#endif
#ifdef M_NO_GIVE_UP
#define GIVES_UP	false
#else
#define GIVES_UP	TIME_OUT
#endif

/* what is due: completions, answers, the return */
inline obey(i) {
	if
#ifdef M_NO_READBACK
	:: atomic { SEES(i) && xstate == XS && wc && !txl -> xstate = XF }
#elif defined(M_PARENT_GOES_ON)
	:: atomic { SEES(i) && (xstate == XS || xstate == XD || xstate == XV) && rd_ok && !txl -> xstate = XF; rd_ok = 0 }
#else
	:: atomic { SEES(i) && xstate == XS && rd_ok && !txl -> xstate = XF }
#endif
	:: atomic { SEES(i) && xstate == XS && (dead || (!y_qp && !silent)) && !rd_ok && !txl -> xstate = XD; ask = 1 }
	/* it had its time: stopped, and whatever it says now does not count */
#ifdef M_GIVE_UP_IS_VOID
	:: atomic { SEES(i) && TIME_OUT && !txl -> dead = 1; xstate = XV }
#elif defined(M_LATE_COUNTS)
	:: atomic { SEES(i) && TIME_OUT && !txl -> xstate = XD; ask = 1 }
	:: atomic { SEES(i) && xstate == XV && rd_ok && !txl -> xstate = XF; rd_ok = 0 }
#elif !defined(M_NO_GIVE_UP)
	:: atomic { SEES(i) && TIME_OUT && !txl -> dead = 1; xstate = XD; ask = 1 }
#endif
#ifdef M_TOLD_IS_VOID
	:: atomic { xstate == XS && x_return && !txl -> xstate = XV }
#endif
#if defined(CHILD_X) && !defined(M_CHILD_WAITS)
	:: atomic { i == 1 && xstate == XS && !txl -> xstate = XD; ask = 1 }
#endif
	:: atomic { xstate == XD && decided == VOID && !txl -> xstate = XV }
	:: atomic { xstate == XD && decided == TAKEN && !txl -> xstate = XR }
	:: atomic { xstate == XF && !txl -> xstate = XR }
	:: atomic { xstate == XR && !txl && nfull(tcp) -> tcp!RETURN; H++; xstate = XV }
	:: true
	fi
}

#define WANTS(i)	(n < ((i) == 0 -> NA : NB))

proctype X(byte me) provided (!xdead || _pid > 2)
{
	byte n;
	bool ok;

	do
	:: !WANTS(me) -> break
	:: break				/* computes for ever */
	:: WANTS(me) ->
		obey(me);
		if
		/* ---- plain: counted in, then the state once more; one kernel call ---- */
#ifdef M_NO_STATE_RECHECK
		:: (xstate == XP || xstate == XV) ->
			in_send++;
			ok = 1;
#else
		:: (xstate == XP || xstate == XV) ->
			in_send++;
			ok = (xstate == XP || xstate == XV);
#endif
			if
			:: atomic { ok && nfull(tcp) -> tcp!PLAIN; H++; n++ }
			:: atomic { !ok || full(tcp) }
			fi;
			atomic { ok = 0; in_send-- }
		/* ---- framed ---- */
		:: atomic { xstate == XF && !txl && nfull(tcp) -> tcp!FRAME; H++; n++ }
		:: atomic { xstate == XF && !txl && SEES(me) && !dead && y_qp -> ring_used = 1; n++ }
		/* ---- not now: EAGAIN, or asleep until something changes ---- */
		:: atomic { xstate == XS || xstate == XD || xstate == XR || full(tcp) ->
			stuck[me] = 1 };
			atomic { nfull(tcp) && (xstate == XP || xstate == XV || xstate == XF || xstate == XR || (xstate == XD && decided != UNSET)
				|| (xstate == XS && SEES(me) && (rd_ok || dead || (!y_qp && !silent) || wc || GIVES_UP))
#if defined(CHILD_X) && !defined(M_CHILD_WAITS)
				|| (xstate == XS && me == 1)
#endif
				) -> stuck[me] = 0 }
		/* ---- start ---- */
		:: atomic { me == 0 && xstate == XP && granted && !x_return && !txl -> txl = 1 };
#ifdef M_INSEND_FIRST
			ok = (in_send == 0);
			xstate = XS;
#else
			xstate = XS;
			ok = (in_send == 0);
#endif
			if
			:: atomic { ok -> S = H; posted = 1 }
			:: atomic { !ok -> xstate = XP }
			fi;
			atomic { ok = 0; txl = 0 }
		fi
	od
}

#ifdef KILL_X
proctype killer() { atomic { xdead = 1; dead = 1; fin = 1 } }
#endif

proctype wire()
{
end:	do
	:: atomic { posted && !wc && !dead && !silent -> wc = 1 }
	:: atomic { posted && !visible && y_qp -> visible = 1 }
	:: atomic { posted && visible && y_qp && !dead && !silent && !rd_ok -> rd_ok = 1 }
#ifdef SILENT
	:: atomic { posted && !silent -> silent = 1 }
#else
	:: atomic { posted && !dead -> dead = 1 }
#endif
	od
}

proctype daemons()
{
end:	do
	:: ask && decided == UNSET ->
		if
		:: atomic { decide == UNSET -> decide = VOID }
		:: atomic { decide != UNSET }
		fi;
		decided = decide
	:: atomic { tell && !x_return -> x_return = 1 }
	od
}

inline take(want) {
	tcp?k; C++; assert(k == want); k = 0
}

/* Start is there: the swap decides */
inline believe() {
	if
#ifdef M_TAKEN_NOT_SWAPPED
	:: true -> ystate = YF; Y_S = S
#elif defined(M_VOID_IGNORED)
	:: true -> if :: decide == UNSET -> decide = TAKEN :: else fi; ystate = YF; Y_S = S
#else
	:: decide != VOID -> decide = TAKEN; ystate = YF; Y_S = S
	:: decide == VOID -> ystate = YV
#endif
	fi
}

proctype Y(byte me)
{
	byte q, k;
	bool ok, see;

	do
	:: break				/* stays away for ever */
	:: atomic { !rxl && !yeof && (nempty(tcp) || fin || ystate != YV) -> rxl = 1 };
		if
#ifdef M_CHILD_READS_PLAIN
		:: atomic { ystate == YP || ystate == YV || me == 1 -> rxl = 0 };
#else
		:: atomic { ystate == YP || ystate == YV -> rxl = 0 };
#endif
			/* a plain receive counts as a sleeper, blocking or not, and looks again */
#ifndef M_RECV_NOT_COUNTED
			sleepers++;
#endif
#if defined(M_NO_YSTATE_RECHECK) || defined(M_RECV_NOT_COUNTED) || defined(M_CHILD_READS_PLAIN)
			ok = 1;
#else
			ok = (ystate == YP || ystate == YV);
#endif
			if
			:: atomic { ok && nempty(tcp) ->
				take(PLAIN) }
			:: atomic { ok && empty(tcp) && fin -> assert(!ring_used || ystate == YV); yeof = 1 }
			:: atomic { !ok || (empty(tcp) && !fin) }
			fi;
#ifndef M_RECV_NOT_COUNTED
			sleepers--;
#endif
			ok = 0
		:: ystate == YG ->
#ifdef M_FIONREAD_AFTER_LOOK
			see = visible;
			q = len(tcp);
#else
			q = len(tcp);
			see = visible;
#endif
			if
			:: atomic { see -> believe() }
			:: atomic { !see && q > 0 -> skip };
				do
				:: atomic { q > 0 -> take(PLAIN); q-- }
				:: atomic { q == 0 -> break }
				od
			:: atomic { !see && q == 0 && (nempty(tcp) || !fin) }
			:: atomic { !see && q == 0 && empty(tcp) && fin -> ok = 1 };
				/* EOF: look once more */
				atomic {
#ifndef M_EOF_NO_SECOND_LOOK
					if
					:: visible -> believe()
					:: !visible -> yeof = 1; assert(!ring_used)
					fi;
#else
					yeof = 1; assert(!ring_used);
#endif
					ok = 0 }
			/* the grant is withdrawn, or the queue pair broke: nothing lands any more, then look, then void */
#ifdef CHILD_Y
			:: !see && me == 0 ->
#else
			:: !see ->
#endif
#ifndef M_QP_KEPT
				y_qp = 0;
#endif
				see = visible;
				atomic {
					if
					:: see -> believe()
#ifdef M_NOT_TOLD
					:: !see && decide == UNSET -> decide = VOID; ystate = YV
#else
					:: !see && decide == UNSET -> decide = VOID; ystate = YV; tell = 1
#endif
					:: !see && decide != UNSET -> ystate = YV
					fi }
#if defined(CHILD_Y) && defined(M_CHILD_VOIDS)
			:: atomic { !see && me == 1 -> if :: decide == UNSET -> decide = VOID; tell = 1 :: else fi; ystate = YV }
#endif
			fi;
			atomic { q = 0; see = 0; rxl = 0 }
		:: atomic { ystate == YF ->
			if
			:: !tell -> tell = 1			/* it wants the return */
			:: C < Y_S && nempty(tcp) -> take(PLAIN)
			:: C >= Y_S && nempty(tcp) ->
				tcp?k; C++;
				assert(k != PLAIN);
				if :: k == RETURN -> ystate = YV :: else fi;
				k = 0
			:: empty(tcp) -> if :: fin -> yeof = 1 :: !fin fi
			fi;
			rxl = 0 }
		fi
	/* ---- grant: mark it, then look at the sleepers, then put it ---- */
	:: atomic { me == 0 && !rxl && ystate == YP && !granted && y_qp && decide == UNSET -> rxl = 1 };
#ifdef M_SLEEPERS_FIRST
		ok = (sleepers == 0);
		ystate = YG;
#else
		ystate = YG;
#ifdef M_GRANT_NO_SLEEPERS
		ok = 1;
#else
		ok = (sleepers == 0);
#endif
#endif
		if
		:: atomic { ok -> granted = 1 }
		:: atomic { !ok -> ystate = YP }
		fi;
		atomic { ok = 0; rxl = 0 }
	od
}

proctype monitor()
{
end:	timeout;
	assert(!stuck[0] || full(tcp) || xdead);
	assert(!stuck[1] || full(tcp));
	assert(!(decide == VOID && xstate == XP) || x_return)	/* or it starts in vain, and cannot send until it knows */
}

init {
	atomic {
		run X(0); run X(1);
		run Y(0); run Y(1);
		run wire();
		run daemons();
#ifdef KILL_X
		run killer();
#endif
		run monitor()
	}
}
