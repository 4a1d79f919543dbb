package main

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// mayMigrate asks a satellite, with the keys in a directory, whether it would
// take desktops.
func mayMigrate(t *testing.T, keys, address string) (*pb.MayMigrateReply, error) {
	t.Helper()
	creds, err := wire.Load(keys, wire.Satellite)
	check(t, err)
	conn, err := grpc.NewClient("passthrough:///"+address, wire.PeerDialOptions(creds, "")...)
	check(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return pb.NewPeerClient(conn).MayMigrate(ctx, &pb.MayMigrateRequest{})
}

// a satellite takes desktops from those that its settings
// name, whatever their address: all of them have the same here. A fresh one takes
// none, and a stranger with the right address gets no answer at all, be it
// without a certificate or with one of another cluster for the right name.
func TestRealRelocation(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	port := map[int]string{}
	for n, allow := range map[int]string{1: "sat[12]", 2: "@cluster", 3: ""} {
		port[n] = "127.0.0.1:" + freePort(t)
		v := values{"WIN4_PEER_LISTEN": port[n]}
		if allow != "" {
			v["WIN4_RELOCATION_SERVER"], v["WIN4_RELOCATION_HOSTS_ALLOW"] = "yes", allow
		}
		r.satelliteAlone(n, v, "")
	}
	r.until("all satellites", func() bool { return strings.Count(r.admin("servers"), "\tup\t") == 3 })
	tests := []struct {
		from, to int
		why      string // empty: allowed
	}{
		{2, 1, ""},
		{3, 1, `desktops of "sat3" are not let in: WIN4_RELOCATION_HOSTS_ALLOW is "sat[12]" here`},
		{1, 2, ""}, {3, 2, ""},
		{1, 3, "WIN4_RELOCATION_SERVER is no here"},
	}
	for _, tt := range tests {
		keys := r.path("ksat" + strconv.Itoa(tt.from))
		var reply *pb.MayMigrateReply
		r.until("the port for satellites, and who is of the cluster", func() (ok bool) {
			var err error
			reply, err = mayMigrate(t, keys, port[tt.to])
			return err == nil && !strings.Contains(reply.Why, "no registered host")
		})
		if reply.Allowed != (tt.why == "") || !strings.Contains(reply.Why, tt.why) {
			t.Errorf("from %d to %d: got %v, %q, want %q", tt.from, tt.to, reply.Allowed, reply.Why, tt.why)
		}
	}

	other := newReal(t) // a cluster of its own, whose satellites have the same names
	other.configure(2, nil, "")
	if reply, err := mayMigrate(t, other.path("ksat2"), port[1]); err == nil {
		t.Errorf("a satellite of another cluster: got %v", reply)
	}
	conn, err := net.Dial("tcp", port[1])
	check(t, err)
	check(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	stranger := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // it trusts anybody
	defer stranger.Close()
	if err = stranger.Handshake(); err == nil {
		_, err = stranger.Read(make([]byte, 1)) // in TLS 1.3 the client's part of it ends earlier
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("who shows no certificate: got %v", err)
	}
}
