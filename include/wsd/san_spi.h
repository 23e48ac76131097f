/* SPDX-License-Identifier: MIT */
/*
 * wsd/san_spi.h - the SAN service provider interface of Windows Sockets Direct, on Linux
 *
 * What a SAN provider exports (WSPStartupEx), what it fills in (WSPPROC_TABLE), what it may call
 * back (WSPUPCALLTABLEEX), and the structures and numbers of both. Names, types and member order
 * are the documented ones of ws2spi.h and ws2san.h, so that a provider written for Windows needs
 * its device code ported and nothing else.
 *
 * Widths:    DWORD, ULONG, LONG (Windows' long) are 32 bits, WCHAR 16 bits (UTF-16, host order), SOCKET,
 *            HANDLE and the _PTR types are as wide as a pointer. Where Windows writes u_long this
 *            header writes ULONG, because u_long is 64 bits wide here.
 * Addresses: struct sockaddr and the address families are Linux's (AF_INET6 is 10, not 23).
 * Clashes:   may be included before or after the Linux socket headers. Names that exist there
 *            with another value have the prefix WSD_WIN_ (WSD_WIN_SOL_SOCKET, WSD_WIN_SOMAXCONN).
 *            Names that have the same value in both worlds are not defined here, take
 *            them from <sys/socket.h> and <netinet/tcp.h>: AF_INET, SOCK_STREAM, MSG_OOB,
 *            SO_DEBUG, IPPROTO_TCP, TCP_NODELAY.
 * Results:   0 or SOCKET_ERROR with a WSA code in *lpErrno, unless said otherwise. A SAN provider
 *            never answers WSAEINPROGRESS and never blocks.
 * Handles:   the provider's own descriptor is what WSPSocket and WSPAccept return; the switch passes it
 *            down. What WPUCreateSocketHandle returned is the switch's handle; the provider passes
 *            it up. The application's descriptor is neither.
 */
#ifndef WSD_SAN_SPI_H
#define WSD_SAN_SPI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* calling convention: there is one */
#define WSPAPI

/* --- base types ------------------------------------------------------------------------------ */

typedef uint8_t BYTE;
typedef uint16_t WORD;
typedef uint32_t DWORD;
typedef int32_t INT;
typedef uint32_t UINT;
typedef int32_t LONG;
typedef uint32_t ULONG;
typedef int32_t BOOL;
typedef uint16_t WCHAR;
typedef char CHAR;
typedef uintptr_t DWORD_PTR;
typedef uintptr_t ULONG_PTR;
typedef size_t SIZE_T;
typedef void *PVOID;
typedef void *LPVOID;
typedef INT *LPINT;
typedef DWORD *LPDWORD;
typedef DWORD_PTR *PDWORD_PTR;
typedef WCHAR *LPWSTR;
typedef void *HANDLE;
typedef void *HWND;
typedef uintptr_t WPARAM;
typedef intptr_t LPARAM;

typedef uintptr_t SOCKET;
typedef UINT GROUP;
typedef HANDLE WSAEVENT;	/* even when looked at as a number: bit 0 of hEvent is a flag */

typedef struct _GUID {
	uint32_t Data1;
	uint16_t Data2;
	uint16_t Data3;
	uint8_t Data4[8];
} GUID, *LPGUID;

#ifndef TRUE
#define TRUE	1
#endif
#ifndef FALSE
#define FALSE	0
#endif

#define INVALID_SOCKET		((SOCKET)~(uintptr_t)0)
#define SOCKET_ERROR		(-1)
#define WSA_INVALID_EVENT	((WSAEVENT)0)

/* --- structures ------------------------------------------------------------------------------ */

typedef struct _WSABUF {
	ULONG len;
	CHAR *buf;
} WSABUF, *LPWSABUF;

typedef struct _WSABUFEX {	/* local side of an RDMA transfer */
	ULONG len;
	CHAR *buf;
	HANDLE handle;		/* from WSPRegisterMemory, with the same socket */
} WSABUFEX, *LPWSABUFEX;

/*
 * Internal and InternalHigh are the switch's once WPUCompleteOverlappedRequest was called, Offset
 * and OffsetHigh are the provider's alone. The provider sets Internal to WSS_OPERATION_IN_PROGRESS
 * before it starts. At the end Offset holds flags, OffsetHigh the error, InternalHigh the bytes, and Internal
 * changes last. Bit 0 of hEvent set: the provider does not notify, the switch polls.
 */
typedef struct _WSAOVERLAPPED {
	ULONG_PTR Internal;
	ULONG_PTR InternalHigh;
	DWORD Offset;
	DWORD OffsetHigh;
	WSAEVENT hEvent;
} WSAOVERLAPPED, *LPWSAOVERLAPPED;

#define WSS_OPERATION_IN_PROGRESS	0x103u

typedef struct _WSATHREADID {	/* unused by SAN providers: always NULL */
	HANDLE ThreadHandle;
	DWORD_PTR Reserved;
} WSATHREADID, *LPWSATHREADID;

#define FD_MAX_EVENTS	10

typedef struct _WSANETWORKEVENTS {
	LONG lNetworkEvents;
	INT iErrorCode[FD_MAX_EVENTS];
} WSANETWORKEVENTS, *LPWSANETWORKEVENTS;

typedef struct _SOCKET_ADDRESS {
	struct sockaddr *lpSockaddr;
	INT iSockaddrLength;
} SOCKET_ADDRESS, *PSOCKET_ADDRESS, *LPSOCKET_ADDRESS;

typedef struct _SOCKET_ADDRESS_LIST {	/* no masks: they are the interfaces' */
	INT iAddressCount;
	SOCKET_ADDRESS Address[1];	/* iAddressCount of them */
} SOCKET_ADDRESS_LIST, *PSOCKET_ADDRESS_LIST, *LPSOCKET_ADDRESS_LIST;

#define WSPDESCRIPTION_LEN	255

typedef struct WSPData {
	WORD wVersion;
	WORD wHighVersion;
	WCHAR szDescription[WSPDESCRIPTION_LEN + 1];
} WSPDATA, *LPWSPDATA;

#define MAX_PROTOCOL_CHAIN	7
#define BASE_PROTOCOL		1
#define LAYERED_PROTOCOL	0
#define WSAPROTOCOL_LEN		255

typedef struct _WSAPROTOCOLCHAIN {
	INT ChainLen;
	DWORD ChainEntries[MAX_PROTOCOL_CHAIN];
} WSAPROTOCOLCHAIN, *LPWSAPROTOCOLCHAIN;

typedef struct _WSAPROTOCOL_INFOW {
	DWORD dwServiceFlags1;		/* XP1_* */
	DWORD dwServiceFlags2;
	DWORD dwServiceFlags3;
	DWORD dwServiceFlags4;
	DWORD dwProviderFlags;		/* PFL_* */
	GUID ProviderId;
	DWORD dwCatalogEntryId;
	WSAPROTOCOLCHAIN ProtocolChain;
	INT iVersion;
	INT iAddressFamily;
	INT iMaxSockAddr;
	INT iMinSockAddr;
	INT iSocketType;
	INT iProtocol;
	INT iProtocolMaxOffset;
	INT iNetworkByteOrder;		/* BIGENDIAN or LITTLEENDIAN of Winsock: 0 or 1 */
	INT iSecurityScheme;
	DWORD dwMessageSize;
	DWORD dwProviderReserved;	/* not 0: WSPSocket takes over a duplicated socket */
	WCHAR szProtocol[WSAPROTOCOL_LEN + 1];
} WSAPROTOCOL_INFOW, *LPWSAPROTOCOL_INFOW;

typedef struct _flowspec {
	ULONG TokenRate;
	ULONG TokenBucketSize;
	ULONG PeakBandwidth;
	ULONG Latency;
	ULONG DelayVariation;
	ULONG ServiceType;
	ULONG MaxSduSize;
	ULONG MinimumPolicedSize;
} FLOWSPEC, *LPFLOWSPEC;

typedef struct _QualityOfService {
	FLOWSPEC SendingFlowspec;
	FLOWSPEC ReceivingFlowspec;
	WSABUF ProviderSpecific;
} QOS, *LPQOS;

static_assert(sizeof(GUID) == 16, "SPI");
static_assert(sizeof(WSABUF) == 2 * sizeof(void *), "SPI");
static_assert(sizeof(WSABUFEX) == 3 * sizeof(void *), "SPI");
static_assert(sizeof(WSAOVERLAPPED) == 3 * sizeof(void *) + 8, "SPI");
static_assert(sizeof(WSANETWORKEVENTS) == 44, "SPI");
static_assert(sizeof(WSPDATA) == 516, "SPI");
static_assert(sizeof(WSAPROTOCOL_INFOW) == 628, "SPI");

/* --- flags and numbers ----------------------------------------------------------------------- */

/* dwServiceFlags1 */
#define XP1_CONNECTIONLESS	0x00000001u
#define XP1_GUARANTEED_DELIVERY	0x00000002u
#define XP1_GUARANTEED_ORDER	0x00000004u
#define XP1_MESSAGE_ORIENTED	0x00000008u
#define XP1_PSEUDO_STREAM	0x00000010u
#define XP1_GRACEFUL_CLOSE	0x00000020u
#define XP1_EXPEDITED_DATA	0x00000040u
#define XP1_CONNECT_DATA	0x00000080u
#define XP1_DISCONNECT_DATA	0x00000100u
#define XP1_QOS_SUPPORTED	0x00002000u
#define XP1_IFS_HANDLES		0x00020000u
#define XP1_PARTIAL_MESSAGE	0x00040000u
#define XP1_SAN_SUPPORT_SDP	0x00080000u

/* dwProviderFlags */
#define PFL_MULTIPLE_PROTO_ENTRIES	0x00000001u
#define PFL_RECOMMENDED_PROTO_ENTRY	0x00000002u
#define PFL_HIDDEN			0x00000004u
#define PFL_MATCHES_PROTOCOL_ZERO	0x00000008u
#define PFL_NETWORKDIRECT_PROVIDER	0x00000010u

/* WSPSocket, dwFlags */
#define WSA_FLAG_OVERLAPPED	0x01u

/* network events; a SAN provider knows ACCEPT and CONNECT only */
#define FD_READ_BIT			0
#define FD_WRITE_BIT			1
#define FD_OOB_BIT			2
#define FD_ACCEPT_BIT			3
#define FD_CONNECT_BIT			4
#define FD_CLOSE_BIT			5
#define FD_QOS_BIT			6
#define FD_GROUP_QOS_BIT		7
#define FD_ROUTING_INTERFACE_CHANGE_BIT	8
#define FD_ADDRESS_LIST_CHANGE_BIT	9
#define FD_READ				(1 << FD_READ_BIT)
#define FD_WRITE			(1 << FD_WRITE_BIT)
#define FD_OOB				(1 << FD_OOB_BIT)
#define FD_ACCEPT			(1 << FD_ACCEPT_BIT)
#define FD_CONNECT			(1 << FD_CONNECT_BIT)
#define FD_CLOSE			(1 << FD_CLOSE_BIT)
#define FD_QOS				(1 << FD_QOS_BIT)
#define FD_GROUP_QOS			(1 << FD_GROUP_QOS_BIT)
#define FD_ROUTING_INTERFACE_CHANGE	(1 << FD_ROUTING_INTERFACE_CHANGE_BIT)
#define FD_ADDRESS_LIST_CHANGE		(1 << FD_ADDRESS_LIST_CHANGE_BIT)

/* answers of the condition function */
#define CF_ACCEPT	0
#define CF_REJECT	1
#define CF_DEFER	2

/* WSPRegisterMemory, WSPRegisterRdmaMemory: what the memory may be used for */
#define MEM_READ	1u
#define MEM_WRITE	2u
#define MEM_READWRITE	3u

/* Winsock's values where Linux has others under the plain name */
#define WSD_WIN_SOL_SOCKET	0xffff
#define WSD_WIN_SOMAXCONN	0x7fffffff

/* options at WSD_WIN_SOL_SOCKET, all 32 bits wide (SO_DEBUG is 1 in both worlds) */
#define SO_GROUP_ID		0x2001
#define SO_GROUP_PRIORITY	0x2002
#define SO_MAX_MSG_SIZE		0x2003
#define SO_MAX_RDMA_SIZE	0x700D
#define SO_RDMA_THRESHOLD_SIZE	0x700E

/* WSPIoctl codes */
#define IOC_VOID	0x20000000u
#define IOC_OUT		0x40000000u
#define IOC_IN		0x80000000u
#define IOC_INOUT	(IOC_IN | IOC_OUT)
#define IOC_WS2		0x08000000u
#define IOC_VENDOR	0x18000000u
#define SIO_GET_EXTENSION_FUNCTION_POINTER	(IOC_INOUT | IOC_WS2 | 6u)
#define SIO_GET_QOS				(IOC_INOUT | IOC_WS2 | 7u)
#define SIO_GET_GROUP_QOS			(IOC_INOUT | IOC_WS2 | 8u)
#define SIO_SET_QOS				(IOC_IN | IOC_WS2 | 11u)
#define SIO_SET_GROUP_QOS			(IOC_IN | IOC_WS2 | 12u)
#define SIO_ADDRESS_LIST_QUERY			(IOC_OUT | IOC_WS2 | 22u)
#define SIO_ADDRESS_LIST_CHANGE			(IOC_VOID | IOC_WS2 | 23u)

/* error codes: plain ones, then Winsock's */
#define WSA_INVALID_HANDLE	6
#define WSA_NOT_ENOUGH_MEMORY	8
#define WSA_INVALID_PARAMETER	87
#define WSA_OPERATION_ABORTED	995
#define WSA_IO_INCOMPLETE	996
#define WSA_IO_PENDING		997
#define WSABASEERR		10000
#define WSAEINTR		10004
#define WSAEBADF		10009
#define WSAEACCES		10013
#define WSAEFAULT		10014
#define WSAEINVAL		10022
#define WSAEMFILE		10024
#define WSAEWOULDBLOCK		10035
#define WSAEINPROGRESS		10036
#define WSAEALREADY		10037
#define WSAENOTSOCK		10038
#define WSAEDESTADDRREQ		10039
#define WSAEMSGSIZE		10040
#define WSAEPROTOTYPE		10041
#define WSAENOPROTOOPT		10042
#define WSAEPROTONOSUPPORT	10043
#define WSAESOCKTNOSUPPORT	10044
#define WSAEOPNOTSUPP		10045
#define WSAEPFNOSUPPORT		10046
#define WSAEAFNOSUPPORT		10047
#define WSAEADDRINUSE		10048
#define WSAEADDRNOTAVAIL	10049
#define WSAENETDOWN		10050
#define WSAENETUNREACH		10051
#define WSAENETRESET		10052
#define WSAECONNABORTED		10053
#define WSAECONNRESET		10054
#define WSAENOBUFS		10055
#define WSAEISCONN		10056
#define WSAENOTCONN		10057
#define WSAESHUTDOWN		10058
#define WSAETIMEDOUT		10060
#define WSAECONNREFUSED		10061
#define WSAEHOSTDOWN		10064
#define WSAEHOSTUNREACH		10065
#define WSAEPROCLIM		10067
#define WSASYSNOTREADY		10091
#define WSAVERNOTSUPPORTED	10092
#define WSANOTINITIALISED	10093
#define WSAEDISCON		10101
#define WSAEINVALIDPROCTABLE	10104
#define WSAEINVALIDPROVIDER	10105
#define WSAEPROVIDERFAILEDINIT	10106
#define WSATRY_AGAIN		11002
#define WSANO_RECOVERY		11003

/* extension functions of the WSD documents, for SIO_GET_EXTENSION_FUNCTION_POINTER */
#define WSD_SAN_GUID_(first) \
	{ first, 0xf58c, 0x11d1, { 0xad, 0x6c, 0x00, 0xc0, 0x4f, 0xa3, 0x4a, 0x2d } }
#define WSAID_REGISTERMEMORY		WSD_SAN_GUID_(0xc0b422f5)
#define WSAID_DEREGISTERMEMORY		WSD_SAN_GUID_(0xc0b422f6)
#define WSAID_REGISTERRDMAMEMORY	WSD_SAN_GUID_(0xc0b422f7)
#define WSAID_DEREGISTERRDMAMEMORY	WSD_SAN_GUID_(0xc0b422f8)
#define WSAID_RDMAWRITE			WSD_SAN_GUID_(0xc0b422f9)
#define WSAID_RDMAREAD			WSD_SAN_GUID_(0xc0b422fa)	/* optional: WSAEOPNOTSUPP */
#define WSAID_MEMORYREGISTRATIONCACHECALLBACK \
	{ 0xe5da4af8, 0xd824, 0x48cd, { 0xa7, 0x99, 0x63, 0x37, 0xa9, 0x8e, 0xd2, 0xaf } }

/* --- functions that travel as parameters ----------------------------------------------------- */

typedef void (*LPWSAOVERLAPPED_COMPLETION_ROUTINE)(DWORD dwError, DWORD cbTransferred,
						   LPWSAOVERLAPPED lpOverlapped, DWORD dwFlags);
typedef void (*LPWSAUSERAPC)(DWORD_PTR dwContext);
typedef BOOL (*LPBLOCKINGCALLBACK)(DWORD_PTR dwContext);

/* called by WSPAccept, in its thread, before it returns: CF_ACCEPT, CF_REJECT or CF_DEFER */
typedef int (*LPCONDITIONPROC)(LPWSABUF lpCallerId, LPWSABUF lpCallerData, LPQOS lpSQOS, LPQOS lpGQOS,
			       LPWSABUF lpCalleeId, LPWSABUF lpCalleeData, GROUP *g,
			       DWORD_PTR dwCallbackData);

/* --- what a provider calls: the switch's table ----------------------------------------------- */

typedef BOOL(WSPAPI *LPWPUCLOSEEVENT)(WSAEVENT hEvent, LPINT lpErrno);
typedef int(WSPAPI *LPWPUCLOSESOCKETHANDLE)(SOCKET s, LPINT lpErrno);
typedef WSAEVENT(WSPAPI *LPWPUCREATEEVENT)(LPINT lpErrno);
typedef SOCKET(WSPAPI *LPWPUCREATESOCKETHANDLE)(DWORD dwCatalogEntryId, DWORD_PTR dwContext, LPINT lpErrno);
typedef int(WSPAPI *LPWPUFDISSET)(SOCKET s, void *fdset);	/* Winsock's fd_set; unused here */
typedef int(WSPAPI *LPWPUGETPROVIDERPATH)(LPGUID lpProviderId, WCHAR *lpszProviderDllPath,
					  LPINT lpProviderDllPathLen, LPINT lpErrno);
typedef SOCKET(WSPAPI *LPWPUMODIFYIFSHANDLE)(DWORD dwCatalogEntryId, SOCKET ProposedHandle, LPINT lpErrno);
typedef BOOL(WSPAPI *LPWPUPOSTMESSAGE)(HWND hWnd, UINT Msg, WPARAM wParam, LPARAM lParam);
typedef int(WSPAPI *LPWPUQUERYBLOCKINGCALLBACK)(DWORD dwCatalogEntryId, LPBLOCKINGCALLBACK *lplpfnCallback,
						PDWORD_PTR lpdwContext, LPINT lpErrno);
typedef int(WSPAPI *LPWPUQUERYSOCKETHANDLECONTEXT)(SOCKET s, PDWORD_PTR lpContext, LPINT lpErrno);
typedef int(WSPAPI *LPWPUQUEUEAPC)(LPWSATHREADID lpThreadId, LPWSAUSERAPC lpfnUserApc, DWORD_PTR dwContext,
				   LPINT lpErrno);
typedef BOOL(WSPAPI *LPWPURESETEVENT)(WSAEVENT hEvent, LPINT lpErrno);
typedef BOOL(WSPAPI *LPWPUSETEVENT)(WSAEVENT hEvent, LPINT lpErrno);
typedef int(WSPAPI *LPWPUOPENCURRENTTHREAD)(LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPWPUCLOSETHREAD)(LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPWPUCOMPLETEOVERLAPPEDREQUEST)(SOCKET s, LPWSAOVERLAPPED lpOverlapped, DWORD dwError,
						    DWORD cbTransferred, LPINT lpErrno);

/* no member is NULL: what the switch does not have answers WSAEOPNOTSUPP */
typedef struct _WSPUPCALLTABLEEX {
	LPWPUCLOSEEVENT lpWPUCloseEvent;
	LPWPUCLOSESOCKETHANDLE lpWPUCloseSocketHandle;
	LPWPUCREATEEVENT lpWPUCreateEvent;
	LPWPUCREATESOCKETHANDLE lpWPUCreateSocketHandle;
	LPWPUFDISSET lpWPUFDIsSet;
	LPWPUGETPROVIDERPATH lpWPUGetProviderPath;
	LPWPUMODIFYIFSHANDLE lpWPUModifyIFSHandle;
	LPWPUPOSTMESSAGE lpWPUPostMessage;
	LPWPUQUERYBLOCKINGCALLBACK lpWPUQueryBlockingCallback;
	LPWPUQUERYSOCKETHANDLECONTEXT lpWPUQuerySocketHandleContext;
	LPWPUQUEUEAPC lpWPUQueueApc;
	LPWPURESETEVENT lpWPUResetEvent;
	LPWPUSETEVENT lpWPUSetEvent;
	LPWPUOPENCURRENTTHREAD lpWPUOpenCurrentThread;
	LPWPUCLOSETHREAD lpWPUCloseThread;
	LPWPUCOMPLETEOVERLAPPEDREQUEST lpWPUCompleteOverlappedRequest;
} WSPUPCALLTABLEEX, *LPWSPUPCALLTABLEEX;

static_assert(sizeof(WSPUPCALLTABLEEX) == 16 * sizeof(void *), "SPI");

/* --- what a provider answers: its table ------------------------------------------------------ */

typedef SOCKET(WSPAPI *LPWSPACCEPT)(SOCKET s, struct sockaddr *addr, LPINT addrlen,
				    LPCONDITIONPROC lpfnCondition, DWORD_PTR dwCallbackData, LPINT lpErrno);
typedef INT(WSPAPI *LPWSPADDRESSTOSTRING)(struct sockaddr *lpsaAddress, DWORD dwAddressLength,
					  LPWSAPROTOCOL_INFOW lpProtocolInfo, LPWSTR lpszAddressString,
					  LPDWORD lpdwAddressStringLength, LPINT lpErrno);
typedef int(WSPAPI *LPWSPASYNCSELECT)(SOCKET s, HWND hWnd, UINT wMsg, LONG lEvent, LPINT lpErrno);
typedef int(WSPAPI *LPWSPBIND)(SOCKET s, const struct sockaddr *name, int namelen, LPINT lpErrno);
typedef int(WSPAPI *LPWSPCANCELBLOCKINGCALL)(LPINT lpErrno);
typedef int(WSPAPI *LPWSPCLEANUP)(LPINT lpErrno);
typedef int(WSPAPI *LPWSPCLOSESOCKET)(SOCKET s, LPINT lpErrno);
typedef int(WSPAPI *LPWSPCONNECT)(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF lpCallerData,
				  LPWSABUF lpCalleeData, LPQOS lpSQOS, LPQOS lpGQOS, LPINT lpErrno);
typedef int(WSPAPI *LPWSPDUPLICATESOCKET)(SOCKET s, DWORD dwProcessId, LPWSAPROTOCOL_INFOW lpProtocolInfo,
					  LPINT lpErrno);
typedef int(WSPAPI *LPWSPENUMNETWORKEVENTS)(SOCKET s, WSAEVENT hEventObject,
					    LPWSANETWORKEVENTS lpNetworkEvents, LPINT lpErrno);
typedef int(WSPAPI *LPWSPEVENTSELECT)(SOCKET s, WSAEVENT hEventObject, LONG lNetworkEvents, LPINT lpErrno);
typedef BOOL(WSPAPI *LPWSPGETOVERLAPPEDRESULT)(SOCKET s, LPWSAOVERLAPPED lpOverlapped, LPDWORD lpcbTransfer,
					       BOOL fWait, LPDWORD lpdwFlags, LPINT lpErrno);
typedef int(WSPAPI *LPWSPGETPEERNAME)(SOCKET s, struct sockaddr *name, LPINT namelen, LPINT lpErrno);
typedef int(WSPAPI *LPWSPGETSOCKNAME)(SOCKET s, struct sockaddr *name, LPINT namelen, LPINT lpErrno);
typedef int(WSPAPI *LPWSPGETSOCKOPT)(SOCKET s, int level, int optname, CHAR *optval, LPINT optlen,
				     LPINT lpErrno);
typedef BOOL(WSPAPI *LPWSPGETQOSBYNAME)(SOCKET s, LPWSABUF lpQOSName, LPQOS lpQOS, LPINT lpErrno);
typedef int(WSPAPI *LPWSPIOCTL)(SOCKET s, DWORD dwIoControlCode, LPVOID lpvInBuffer, DWORD cbInBuffer,
				LPVOID lpvOutBuffer, DWORD cbOutBuffer, LPDWORD lpcbBytesReturned,
				LPWSAOVERLAPPED lpOverlapped,
				LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
				LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef SOCKET(WSPAPI *LPWSPJOINLEAF)(SOCKET s, const struct sockaddr *name, int namelen,
				      LPWSABUF lpCallerData, LPWSABUF lpCalleeData, LPQOS lpSQOS,
				      LPQOS lpGQOS, DWORD dwFlags, LPINT lpErrno);
typedef int(WSPAPI *LPWSPLISTEN)(SOCKET s, int backlog, LPINT lpErrno);
typedef int(WSPAPI *LPWSPRECV)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount,
			       LPDWORD lpNumberOfBytesRecvd, LPDWORD lpFlags, LPWSAOVERLAPPED lpOverlapped,
			       LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
			       LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPWSPRECVDISCONNECT)(SOCKET s, LPWSABUF lpInboundDisconnectData, LPINT lpErrno);
typedef int(WSPAPI *LPWSPRECVFROM)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount,
				   LPDWORD lpNumberOfBytesRecvd, LPDWORD lpFlags, struct sockaddr *lpFrom,
				   LPINT lpFromlen, LPWSAOVERLAPPED lpOverlapped,
				   LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
				   LPWSATHREADID lpThreadId, LPINT lpErrno);
/* the sets and the time-out are Winsock's; a SAN provider leaves this entry empty */
typedef int(WSPAPI *LPWSPSELECT)(int nfds, void *readfds, void *writefds, void *exceptfds,
				 const void *timeout, LPINT lpErrno);
typedef int(WSPAPI *LPWSPSEND)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount, LPDWORD lpNumberOfBytesSent,
			       DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped,
			       LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
			       LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPWSPSENDDISCONNECT)(SOCKET s, LPWSABUF lpOutboundDisconnectData, LPINT lpErrno);
typedef int(WSPAPI *LPWSPSENDTO)(SOCKET s, LPWSABUF lpBuffers, DWORD dwBufferCount,
				 LPDWORD lpNumberOfBytesSent, DWORD dwFlags, const struct sockaddr *lpTo,
				 int iTolen, LPWSAOVERLAPPED lpOverlapped,
				 LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
				 LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPWSPSETSOCKOPT)(SOCKET s, int level, int optname, const CHAR *optval, int optlen,
				     LPINT lpErrno);
typedef int(WSPAPI *LPWSPSHUTDOWN)(SOCKET s, int how, LPINT lpErrno);
typedef SOCKET(WSPAPI *LPWSPSOCKET)(int af, int type, int protocol, LPWSAPROTOCOL_INFOW lpProtocolInfo,
				    GROUP g, DWORD dwFlags, LPINT lpErrno);
typedef INT(WSPAPI *LPWSPSTRINGTOADDRESS)(LPWSTR AddressString, INT AddressFamily,
					  LPWSAPROTOCOL_INFOW lpProtocolInfo, struct sockaddr *lpAddress,
					  LPINT lpAddressLength, LPINT lpErrno);

/* a SAN provider fills the 17 entries marked *; the switch looks at no other */
typedef struct _WSPPROC_TABLE {
	LPWSPACCEPT lpWSPAccept;			/* * */
	LPWSPADDRESSTOSTRING lpWSPAddressToString;
	LPWSPASYNCSELECT lpWSPAsyncSelect;
	LPWSPBIND lpWSPBind;				/* * */
	LPWSPCANCELBLOCKINGCALL lpWSPCancelBlockingCall;
	LPWSPCLEANUP lpWSPCleanup;			/* * */
	LPWSPCLOSESOCKET lpWSPCloseSocket;		/* * */
	LPWSPCONNECT lpWSPConnect;			/* * */
	LPWSPDUPLICATESOCKET lpWSPDuplicateSocket;	/* * */
	LPWSPENUMNETWORKEVENTS lpWSPEnumNetworkEvents;	/* * */
	LPWSPEVENTSELECT lpWSPEventSelect;		/* * */
	LPWSPGETOVERLAPPEDRESULT lpWSPGetOverlappedResult; /* * */
	LPWSPGETPEERNAME lpWSPGetPeerName;
	LPWSPGETSOCKNAME lpWSPGetSockName;
	LPWSPGETSOCKOPT lpWSPGetSockOpt;		/* * */
	LPWSPGETQOSBYNAME lpWSPGetQOSByName;		/* * may only answer WSAEOPNOTSUPP */
	LPWSPIOCTL lpWSPIoctl;				/* * */
	LPWSPJOINLEAF lpWSPJoinLeaf;
	LPWSPLISTEN lpWSPListen;			/* * */
	LPWSPRECV lpWSPRecv;				/* * */
	LPWSPRECVDISCONNECT lpWSPRecvDisconnect;
	LPWSPRECVFROM lpWSPRecvFrom;
	LPWSPSELECT lpWSPSelect;
	LPWSPSEND lpWSPSend;				/* * */
	LPWSPSENDDISCONNECT lpWSPSendDisconnect;
	LPWSPSENDTO lpWSPSendTo;
	LPWSPSETSOCKOPT lpWSPSetSockOpt;		/* * */
	LPWSPSHUTDOWN lpWSPShutdown;
	LPWSPSOCKET lpWSPSocket;			/* * */
	LPWSPSTRINGTOADDRESS lpWSPStringToAddress;
} WSPPROC_TABLE, *LPWSPPROC_TABLE;

static_assert(sizeof(WSPPROC_TABLE) == 30 * sizeof(void *), "SPI");

/* --- extension functions --------------------------------------------------------------------- */

/* local memory: buffers of WSPSend and WSPRecv, local side of RDMA. NULL on error. Counted. */
typedef HANDLE(WSPAPI *LPFN_WSPREGISTERMEMORY)(SOCKET s, PVOID lpBuffer, DWORD dwBufferLength, DWORD dwFlags,
					       LPINT lpErrno);
typedef int(WSPAPI *LPFN_WSPDEREGISTERMEMORY)(SOCKET s, HANDLE Handle, LPINT lpErrno);
/* memory the peer of this socket may reach; *lpdwDescriptorLength too small: WSAEFAULT and the size */
typedef int(WSPAPI *LPFN_WSPREGISTERRDMAMEMORY)(SOCKET s, PVOID lpBuffer, DWORD dwBufferLength, DWORD dwFlags,
						LPVOID lpRdmaBufferDescriptor, LPDWORD lpdwDescriptorLength,
						LPINT lpErrno);
typedef int(WSPAPI *LPFN_WSPDEREGISTERRDMAMEMORY)(SOCKET s, LPVOID lpRdmaBufferDescriptor,
						  DWORD dwDescriptorLength, LPINT lpErrno);
typedef int(WSPAPI *LPFN_WSPRDMAWRITE)(SOCKET s, LPWSABUFEX lpBuffers, DWORD dwBufferCount,
				       LPVOID lpTargetBufferDescriptor, DWORD dwTargetDescriptorLength,
				       DWORD dwTargetBufferOffset, LPDWORD lpdwNumberOfBytesWritten,
				       DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped,
				       LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
				       LPWSATHREADID lpThreadId, LPINT lpErrno);
typedef int(WSPAPI *LPFN_WSPRDMAREAD)(SOCKET s, LPWSABUFEX lpBuffers, DWORD dwBufferCount,
				      LPVOID lpTargetBufferDescriptor, DWORD dwTargetDescriptorLength,
				      DWORD dwTargetBufferOffset, LPDWORD lpdwNumberOfBytesRead,
				      DWORD dwFlags, LPWSAOVERLAPPED lpOverlapped,
				      LPWSAOVERLAPPED_COMPLETION_ROUTINE lpCompletionRoutine,
				      LPWSATHREADID lpThreadId, LPINT lpErrno);
/* 0: dropped; WSAEFAULT: cached and in use; WSAEINVAL: was not cached. Must not allocate. */
typedef int(WSPAPI *LPFN_WSPMEMORYREGISTRATIONCACHECALLBACK)(PVOID lpvAddress, SIZE_T Size, LPINT lpErrno);

/* --- the one symbol a provider exports ------------------------------------------------------- */

/**
 * WSPStartupEx() - begin using a provider in this process
 * @wVersionRequested:	low byte major, high byte minor: 0x0202
 * @lpWSPData:		filled: version used, highest version, description
 * @lpProtocolInfo:	under the switch TCP/IP's entry, else the provider's own
 * @lpUpCallTable:	what the provider may call; copied
 * @lpProcTable:	filled
 *
 * May be called again; each success needs one WSPCleanup.
 *
 * Return: 0, or the error itself: WSASYSNOTREADY, WSAVERNOTSUPPORTED, WSAEPROCLIM, WSAEFAULT,
 * WSAEPROVIDERFAILEDINIT.
 */
int WSPAPI WSPStartupEx(WORD wVersionRequested, LPWSPDATA lpWSPData, LPWSAPROTOCOL_INFOW lpProtocolInfo,
			LPWSPUPCALLTABLEEX lpUpCallTable, LPWSPPROC_TABLE lpProcTable);

typedef int(WSPAPI *LPWSPSTARTUPEX)(WORD wVersionRequested, LPWSPDATA lpWSPData,
				    LPWSAPROTOCOL_INFOW lpProtocolInfo, LPWSPUPCALLTABLEEX lpUpCallTable,
				    LPWSPPROC_TABLE lpProcTable);

#ifdef __cplusplus
}
#endif

#endif
