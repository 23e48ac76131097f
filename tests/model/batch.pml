/*
 * batch.pml - batching on the SAN: X keeps ring bytes back, Y fetches them before it sleeps; for spin 6.5
 *
 * X's program copies bytes into its source ring (posted) and need not hand them to its card at once (given): it shows {given, posted} in a
 * record that Y's card can read (out), fence, and looks whether Y is asleep. Y, before it sleeps, once for each head: WRITE asleep{head} into
 * X's page, behind it READ of out; what was kept back it READs from X's ring (pull). So one of both sees the other, and bytes that
 * send() returned for arrive though X never calls again. Seams, frames, return and FILL as in agreed.pml, which has their details; here they
 * are one step each. X keeps back or not as it likes, as long as what Y said last is below given.
 *
 * Modelled: X's store buffer (out reaches memory later, but at a fence); -DTORN: records half written when they are read; both cards' queues;
 * a put's bytes are read some time after it was posted and land later, in order; a READ is executed in its order or again later (its
 * response was lost), and its response lands at any time, overtaken by puts or not; completions and credits that come late; a full ring that
 * X waits for; frames between puts, under way for any time, with X's flush before them or without (no slots); batching switched off and on
 * again (-DOFFS=1); a completion that raises nothing and is taken by another thread (-DNUDGED: it wakes); return at any time; X stays away
 * for ever between two calls; -DDIES: the road dies at any moment, what is under way lands or not; -DKILL_X: X is killed at any moment.
 * Not modelled: grant and start; several threads at an end, and waking them (wake.pml); forked children; ring 1; receive credits; hostile
 * peers; the end of the stream. Slots hold the numbers of the stream's bytes.
 *
 * Checks: bytes in order, none lost, none doubled (deliver); an honest peer never looks broken; what is taken was posted; a put is no larger
 * than the ring; when nothing moves any more Y has all that X took from its program, and X does not wait for room (monitor). pan -E.
 */
#ifndef N
#define N 4		/* bytes the program has */
#endif
#ifndef FR
#define FR 1		/* frames */
#endif
#ifndef RING
#define RING 2		/* at most 4 */
#endif
#ifndef KEEP
#define KEEP 2		/* most bytes kept back: the quarter of the ring */
#endif
#ifndef OFFS
#define OFFS 0		/* times that batching is switched off */
#endif
#define NONE	255

/* what the cards are asked for */
#define PUT	1	/* from, to */
#define SEAM	2	/* ring offset, TCP offset */
#define BATCH	3	/* on */
#define ASLEEP	4	/* head */
#define CREDIT	5	/* cursor */
#define OUT	6
#define PULL	7	/* from, to */
/* on TCP */
#define DATA	1	/* ring offset, byte */
#define RETURN	2	/* from, to */

#define XF	0
#define XV	1
#define YF	0
#define YR	1

/* ---- wire ---- */
chan tnet = [FR + 1] of { byte, byte, byte };	/* under way */
chan tcp = [FR + 1] of { byte, byte, byte };
chan xq = [4] of { byte, byte, byte };		/* posted by X */
chan xnet = [2] of { byte, byte, byte, byte, byte, byte, byte };	/* ... and read by its card */
chan yq = [4] of { byte, byte, byte };		/* posted by Y */
chan ycq = [4] of { byte, byte, byte, bool };	/* Y's completions */
byte landed;			/* X's signalled puts that have landed */
byte rd_x, rd_a, rd_b;		/* Y's READ that X's card is at */
byte rd_at;			/* 1: it is its turn; 2: read, the response is on its way */
byte rv[4];
bool rt_;
bool dead, lost;		/* the road: both will see an error; nothing lands any more */

/* ---- X ---- */
byte xstate = XF;
byte H, posted, given, done;
byte tx[RING];
byte seam_t, seam_n, xseam_r[FR + 1], xseam_t[FR + 1];
bool xb;			/* batching is on */
byte frames, offs, last_r;
byte sent;			/* bytes of the stream that send() took */
bool xwait, xdead;
bool pend;			/* for a mutant: a seam is kept back */
/* its page, which Y's card reads and writes */
byte o_g, o_p;			/* out */
bool o_torn;
byte as_h;			/* asleep */
bool as_torn;
bool as_f;			/* the same as a flag, for a mutant */
byte cursor;
/* its CPU's store buffer */
bool sb;
byte sb_g, sb_p;

/* ---- Y ---- */
byte ystate = YF;
byte C, head, taken, next;
byte rx[RING];
byte seam_next, ys_n, ys_r[FR + 1], ys_t[FR + 1];
bool yb;			/* batch, as X's card wrote it */
byte asked = NONE, told;
byte pull_to;			/* where the last pull ends, for a mutant */
byte rd;			/* 0, OUT or PULL: the READ under way */
byte ans_p;			/* what X keeps back ends here, as it said; 0: nothing */
bool slp;
byte ret_end;
byte filled;

#define deliver(b)	assert((b) == next + 1); next++
#define MIN(a, b)	((a) < (b) -> (a) : (b))
#define MAX(a, b)	((a) > (b) -> (a) : (b))

/* ---- X ---- */
#ifdef M_NO_DONE
#define ROOM	(posted < cursor + RING)
#else
#define ROOM	(posted < cursor + RING && posted < done + RING)
#endif
#define HOLD	(len(xq) == 0)

#ifdef M_FLAG
#define Y_ASLEEP	(as_f)
#elif defined(M_ASLEEP_NOT_READ)
#define Y_ASLEEP	(false)
#elif defined(M_ASLEEP_BEYOND)
#define Y_ASLEEP	(as_h > given)
#else
#define Y_ASLEEP	(!as_torn && as_h >= given)
#endif

inline post_put(pa, pb) {
	assert(pb - pa <= RING);
	xq!PUT,pa,pb
}

/* what was kept back, and the byte of now. The card may say "not now" only before a byte is taken (HOLD) */
inline flush() {
#ifdef M_SEAM_KEPT
	if
	:: pend ->
		if :: given < xseam_r[seam_n - 1] -> post_put(given, xseam_r[seam_n - 1]) :: else fi;
		xq!SEAM,xseam_r[seam_n - 1],xseam_t[seam_n - 1];
		post_put(xseam_r[seam_n - 1], posted);
		pend = 0
	:: else -> post_put(given, posted)
	fi;
#else
	post_put(given, posted);
#endif
	given = posted
}

/* into the store buffer; what is in it leaves first */
#define store_out(sg, sp) atomic { !sb -> sb = 1; sb_g = sg; sb_p = sp }

#ifdef M_BACKLOG_TO_GIVEN
#define ENDS_AT		given
#else
#define ENDS_AT		posted
#endif

#define TAKE_BYTE(v)	tx[(posted - 1) % RING] = v

proctype X() provided (!xdead)
{
	bool due, on;

	do
	:: atomic { xstate == XF && sent < N && ROOM && !dead &&
#ifndef M_HOLD_LATE
		HOLD ->
#else
		true ->
#endif
		due = (H != seam_t); on = !xb; posted++; sent++;
		if
		:: due ->
			xseam_r[seam_n] = posted - 1; xseam_t[seam_n] = H; seam_t = H; seam_n++;
#ifdef M_SEAM_KEPT
			if :: !on -> pend = 1; due = 0 :: else fi
#endif
		:: else
		fi;
#ifdef M_ON_SHOWN
		xb = 1;
#endif
#ifndef M_OUT_EARLY
		TAKE_BYTE(sent)
#endif
		};
		if
		:: due || on ->		/* never kept back; behind it batching is on */
#ifdef M_ON_SHOWN
			if :: !due -> store_out(given, posted); (!sb) :: else fi;
#endif
#ifdef M_SEAM_SHOWN
			if :: due && xb -> store_out(given, posted); (!sb) :: else fi;
#endif
			atomic {
#ifndef M_BATCH_LATE
				if :: on -> xq!BATCH,1,0 :: else fi;
#endif
				if
				:: due ->
					if :: given < posted - 1 -> post_put(given, posted - 1) :: else fi;
					xq!SEAM,posted - 1,H;
					post_put(posted - 1, posted)
				:: else -> post_put(given, posted)
				fi;
#ifdef M_BATCH_LATE
				if :: on -> xq!BATCH,1,0 :: else fi;
#endif
				given = posted; xb = 1; due = 0; on = 0
			}
#ifndef M_HOLD_LATE
#ifdef M_OUT_EARLY
		:: !(due || on) -> TAKE_BYTE(sent); atomic { flush() }
#else
		:: atomic { !(due || on) -> flush() }
#endif
#endif
		:: !(due || on) && posted - given <= KEEP ->
			store_out(given, posted);
#ifndef M_NO_FENCE
			(!sb);
#endif
#ifdef M_OUT_EARLY
			TAKE_BYTE(sent);
#endif
			if
			:: !Y_ASLEEP
			:: Y_ASLEEP ->
#ifdef M_HOLD_LATE
				if :: atomic { HOLD -> flush() } :: !HOLD fi
#else
				atomic { flush() }
#endif
#ifdef M_FLAG
				; as_f = 0
#endif
			fi
		fi
	/* what was kept back, by the way: at a wait of its own */
	:: atomic { xstate == XF && !dead && given < posted && HOLD -> flush() }
	/* a full ring, and TCP full as well */
	:: atomic { xstate == XF && !dead && sent < N && !ROOM -> xwait = 1 };
		do
#ifndef M_FULL_KEEPS
		:: atomic { !dead && given < posted && HOLD -> flush() }
#endif
		:: atomic { ROOM || dead -> xwait = 0; break }
		od
	:: atomic { xstate == XF && frames < FR && sent < N && !dead && nfull(tnet) ->
		sent++; H++; frames++; last_r = posted; tnet!DATA,posted,sent }
#if OFFS
	:: atomic { xstate == XF && xb && offs < OFFS && given == posted && HOLD && !dead -> xq!BATCH,0,0; xb = 0; offs++ }
#endif
	:: atomic { xstate == XF && nfull(tnet) -> tnet!RETURN,MAX(cursor, last_r),ENDS_AT; xstate = XV; break }
	:: break		/* computes for ever */
	od
}

proctype buffer()
{
end:	do
#ifdef TORN
	:: atomic { sb -> o_torn = 1 };
		atomic { o_g = sb_g; o_p = sb_p; o_torn = 0; sb = 0; sb_g = 0; sb_p = 0 }
#else
	:: atomic { sb -> o_g = sb_g; o_p = sb_p; sb = 0; sb_g = 0; sb_p = 0 }
#endif
	od
}

#ifdef KILL_X
proctype end_of_it() { if :: atomic { xdead = 1; xwait = 0; dead = 1 } :: true fi }
#else
proctype end_of_it() { if :: dead = 1 :: true fi }
#endif

/* ---- the cards ---- */
inline into_rx(wa, wb, w0, w1, w2, w3) {
	if :: wa < wb -> rx[wa % RING] = w0 :: else fi;
	if :: wa + 1 < wb -> rx[(wa + 1) % RING] = w1 :: else fi;
	if :: wa + 2 < wb -> rx[(wa + 2) % RING] = w2 :: else fi;
	if :: wa + 3 < wb -> rx[(wa + 3) % RING] = w3 :: else fi
}
#define FROM_TX(fa, fi, fb)	((fa) + (fi) < (fb) -> tx[((fa) + (fi)) % RING] : 0)

proctype x_card()
{
	byte k, a, b, v, w, y, z;

end:	do
	:: atomic { nempty(xq) && nfull(xnet) ->
		xq?k,a,b;
		if
		:: k == PUT -> xnet!k,a,b,FROM_TX(a, 0, b),FROM_TX(a, 1, b),FROM_TX(a, 2, b),FROM_TX(a, 3, b)
		:: k != PUT -> xnet!k,a,b,0,0,0,0
		fi;
		k = 0; a = 0; b = 0 }
	:: atomic { !lost && nempty(xnet) && nfull(ycq) ->
		xnet?k,a,b,v,w,y,z;
		if
		:: k == PUT ->
			into_rx(a, b, v, w, y, z); ycq!PUT,b,0,0;
#ifndef M_UNSIGNALLED
			landed = b
#endif
		:: k == SEAM -> ys_r[ys_n] = a; ys_t[ys_n] = b; ys_n++
		:: k == BATCH -> yb = a
		fi;
		k = 0; a = 0; b = 0; v = 0; w = 0; y = 0; z = 0 }
	:: atomic { !dead && done < landed -> done = landed }
	:: atomic { dead && !lost -> lost = 1; landed = 0 }
	od
}

proctype tcp_wire()
{
	byte k, a, b;

end:	do
	:: atomic { nempty(tnet) -> tnet?k,a,b; tcp!k,a,b; k = 0; a = 0; b = 0 }
	od
}

proctype y_card()
{
	byte k, a, b;

end:	do
#ifdef TORN
	:: atomic { as_torn -> as_torn = 0 }
#endif
	:: atomic { !lost && nempty(yq) && !as_torn && (rd_at == 0 || !(yq?[OUT,_,_] || yq?[PULL,_,_])) ->
		yq?k,a,b;
		if
		:: k == ASLEEP ->
			as_h = a; as_f = 1;
#ifdef TORN
			as_torn = 1
#endif
		:: k == CREDIT -> assert(a <= posted); cursor = a
		:: k == OUT || k == PULL -> rd_x = k; rd_a = a; rd_b = b; rd_at = 1
		fi;
		k = 0; a = 0; b = 0 }
	:: atomic { !lost && rd_at == 1 && !as_torn ->
		if
		:: rd_x == OUT -> rt_ = o_torn; rv[0] = (o_torn -> 0 : o_g); rv[1] = (o_torn -> 0 : o_p)
		:: rd_x == PULL ->
			rv[0] = FROM_TX(rd_a, 0, rd_b); rv[1] = FROM_TX(rd_a, 1, rd_b); rv[2] = FROM_TX(rd_a, 2, rd_b); rv[3] = FROM_TX(rd_a, 3, rd_b)
		fi;
		rd_at = 2 }
	:: atomic { !lost && rd_at == 2 && nfull(ycq) ->
		if
		:: rd_x == OUT -> ycq!OUT,rv[0],rv[1],rt_
		:: rd_x == PULL -> into_rx(rd_a, rd_b, rv[0], rv[1], rv[2], rv[3]); ycq!PULL,rd_b,0,0
		fi;
		rv[0] = 0; rv[1] = 0; rv[2] = 0; rv[3] = 0; rt_ = 0; rd_at = 0; rd_x = 0; rd_a = 0; rd_b = 0 }
	od
}

/* ---- Y ---- */
#define AVAIL	MAX(head, filled)
/* the next seam: where it is, or nowhere. What does not come by the card is in the daemon's hands */
#define SEAM_AT(r)	((seam_next < ys_n && ys_r[seam_next] == (r)) || (filled > 0 && seam_next < seam_n && xseam_r[seam_next] == (r)))
#define SEAM_C	(xseam_t[seam_next])
#define RING_BYTE	(taken < AVAIL && !SEAM_AT(taken))
#define PASS	(taken < AVAIL && SEAM_AT(taken) && C >= SEAM_C)
#define TCP_NEXT	(tcp?[RETURN,_,_] || tcp?[DATA,eval(taken),_])
#ifdef ASK_TAKEN
#define MAY_ASK	(taken == head)
#else
#define MAY_ASK	true
#endif
#define NOTHING	(ystate == YF && !RING_BYTE && !PASS && !TCP_NEXT)

#ifdef M_ASK_ONCE
#define ASK	(yb && rd == 0 && !dead && asked == NONE && MAY_ASK)
#else
#define ASK	(yb && rd == 0 && !dead && asked != head && MAY_ASK)
#endif
#ifdef M_CURSOR_UNDER_PULL
#define MAY_TELL	true
#else
#define MAY_TELL	(rd != PULL)
#endif

#ifdef M_PULL_ANY
#define KEPT_BACK	(b > head)
#elif defined(M_GIVEN_IS_HEAD)
#define KEPT_BACK	(a == head && b > head)
#else
#define KEPT_BACK	(a <= head && b > head)
#endif

/* the answer holds as long as Y has not come to its end */
#define PULL_MAY	(rd == 0 && !dead && ystate == YF && ans_p > head)
#ifdef M_PULL_UNTAKEN
#define PULL_NOW	PULL_MAY
#else
#define PULL_NOW	(PULL_MAY && taken == head)
#endif

proctype Y()
{
	byte k, a, b;
	bool t;

end:	do
	:: atomic { slp && !NOTHING -> slp = 0 }
	/* completions, whoever takes them: they wake who sleeps if they raise head, or if they end a READ */
	:: atomic { nempty(ycq) ->
		ycq?k,a,b,t;
		if
		:: k == PUT ->
#ifndef NUDGED
			if :: a > head -> slp = 0 :: else fi;
#else
			slp = 0;
#endif
#ifdef M_IMM_IS_STEP
			assert(a >= head);
#endif
#ifdef M_PULL_TO
			assert(a >= head || head == pull_to);
#endif
#ifdef M_HEAD_BACK
			head = a;
#else
			head = MAX(head, a);
#endif
			assert(head - taken <= RING)
		:: k == OUT ->
			rd = 0;
#ifndef M_OUT_SILENT
			slp = 0;
#endif
			if
#ifdef M_ANSWER_DROPPED
			:: !t && KEPT_BACK && taken == head -> ans_p = b
#else
			:: !t && KEPT_BACK -> ans_p = b
#endif
			:: else		/* torn: X is storing, and looks at asleep after it */
			fi
		:: k == PULL ->
			rd = 0; slp = 0;
#ifdef M_PULL_SETS_HEAD
			head = a
#else
			head = MAX(head, a)
#endif
		fi;
		k = 0; a = 0; b = 0; t = 0 }
	:: atomic { !slp && ystate == YF && RING_BYTE ->
		if
		:: taken < head -> a = rx[taken % RING]
		:: taken >= head -> a = tx[taken % RING]
		fi;
		deliver(a); taken++; a = 0;
		assert(taken <= posted) }
	:: atomic { !slp && ystate == YF && PASS -> assert(C == SEAM_C); seam_next++ }
	:: atomic { !slp && ystate == YF && !RING_BYTE && !PASS && TCP_NEXT ->
		tcp?k,a,b;
		if
		:: k == RETURN -> assert(a <= taken && taken <= b); ystate = YR; ret_end = b
		:: k == DATA -> C++; deliver(b)
		fi;
		k = 0; a = 0; b = 0 }
	/* the backlog: TCP brings it */
	:: atomic { !slp && ystate == YR && taken < ret_end -> deliver(tx[taken % RING]); taken++ }
	:: atomic { !slp && !dead && told < taken && ystate == YF && MAY_TELL && len(yq) <= 2 -> told = taken; yq!CREDIT,taken,0 }
	/* nothing to read: ask, once for each head */
	:: atomic { !slp && NOTHING && ASK && !PULL_NOW && len(yq) <= 2 ->
		asked = head; rd = OUT; ans_p = 0;
#ifdef M_READ_FIRST
		yq!OUT,0,0; yq!ASLEEP,head,0
#else
		yq!ASLEEP,head,0; yq!OUT,0,0
#endif
		}
	/* what X keeps back */
	:: atomic { !slp && PULL_NOW ->
		assert(ans_p - taken <= RING);
		rd = PULL;
#ifdef M_PULL_TO
		pull_to = MIN(ans_p, (head / RING + 1) * RING);
#endif
		yq!PULL,head,MIN(ans_p, (head / RING + 1) * RING);
		ans_p = 0 }
	:: atomic { !slp && NOTHING && !ASK && !PULL_NOW && empty(ycq) && (dead || told == taken || !MAY_TELL) -> slp = 1 }
	od
}

/* the daemons: what the road brings no more */
proctype daemons()
{
end:	do
	:: atomic { lost && filled < ENDS_AT -> filled = ENDS_AT }
	od
}

proctype monitor()
{
end:	timeout;
	assert(next == sent);
	assert(!xwait)
}

init {
	atomic {
		run X(); run Y(); run buffer(); run x_card(); run y_card(); run tcp_wire(); run daemons();
#if defined(DIES) || defined(KILL_X)
		run end_of_it();
#endif
		run monitor()
	}
}
