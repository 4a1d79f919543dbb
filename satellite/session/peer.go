package session

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/grpc/credentials"

	"verdecmd/proto/wire"
)

// limitUsers closes connections of a Unix socket beyond perUser of one user and
// beyond total, those of this program's own user aside.
func limitUsers(l net.Listener, perUser, total int) net.Listener {
	return &userListener{Listener: l, perUser: perUser, total: total, users: map[uint32]int{}}
}

type userListener struct {
	net.Listener
	perUser, total int

	mu    sync.Mutex // guards all below
	open  int
	users map[uint32]int // connections by UID
}

// userConn is a connection, and who is at its other end, as the kernel knows.
type userConn struct {
	net.Conn
	uid   uint32
	close func() // gives its place back
}

func (c *userConn) Close() error {
	defer c.close()
	return c.Conn.Close()
}

// Accept implements net.Listener.
func (l *userListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && l.take(uid) {
			return &userConn{Conn: wire.Pace(c, userRate, userBurst), uid: uid, close: sync.OnceFunc(func() { l.give(uid) })}, nil
		}
		c.Close()
	}
}

func (l *userListener) take(uid uint32) bool {
	if uid == uint32(os.Geteuid()) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.users[uid] >= l.perUser {
		return false
	}
	l.open++
	l.users[uid]++
	return true
}

func (l *userListener) give(uid uint32) {
	if uid == uint32(os.Geteuid()) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.users[uid]--; l.users[uid] == 0 {
		delete(l.users, uid)
	}
}

// peerUID is who connected.
func peerUID(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// peerCredentials tells a server who is at the other end of a Unix socket.
type peerCredentials struct{}

type peerInfo struct {
	credentials.CommonAuthInfo
	uid uint32
}

func (peerInfo) AuthType() string { return "peercred" }

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := c.(*userConn)
	if !ok {
		return nil, nil, errors.New("not a connection of the local socket")
	}
	return c, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, u.uid}, nil
}

func (peerCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, peerInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

func (peerCredentials) OverrideServerName(string) error { return nil }

// ClientCredentials are what a client of the local socket uses.
func ClientCredentials() credentials.TransportCredentials { return peerCredentials{} }
