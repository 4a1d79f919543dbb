package satellite

import (
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

// FuzzWin4: whatever a satellite answers, and whatever it was told by others, the
// user's terminal gets lines of text that cannot drive it, and a last line that a
// script can take apart (S21).
func FuzzWin4(f *testing.F) {
	for _, m := range []*pb.OpenReply{
		{Kind: &pb.OpenReply_Progress{Progress: &pb.Progress{Text: "The desktop is starting.", ElapsedS: 3}}},
		{Kind: &pb.OpenReply_Opened{Opened: &pb.Opened{Existing: true, Session: &pb.Session{Id: "s7", User: "alice", State: "running", Image: "win4/7", Display: "vnc+unix:/snap/s7/vnc"}}}},
		{Kind: &pb.OpenReply_Opened{Opened: &pb.Opened{}}},
		{Kind: &pb.OpenReply_Referred{Referred: &pb.Referred{ServerId: 2, Name: "sat2", Address: "192.0.2.12", RemainingS: 60}}},
		{Kind: &pb.OpenReply_Referred{Referred: &pb.Referred{ServerId: 2, Name: "sat2\nreferred 3 evil evil", Address: "\x1b]0;x\x07", Existing: true}}},
		{Kind: &pb.OpenReply_Referred{Referred: &pb.Referred{Name: " ", Address: "-oProxyCommand=sh"}}},
		{},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.OpenReply{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		var out, progress strings.Builder
		last, done, err := show(m, "before", &out, &progress)
		for _, text := range []string{out.String(), progress.String(), last} {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 }) {
				t.Errorf("%q is shown", text)
			}
		}
		if err != nil && !done {
			t.Errorf("goes on after %v", err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if r := m.GetReferred(); r != nil {
			words := strings.Fields(lines[len(lines)-1])
			if len(lines) != 2 || len(words) != 4 || words[0] != "referred" || words[3][0] == '-' {
				t.Errorf("referred by %q", out.String())
			}
		} else if m.GetOpened() != nil && (len(lines) != 2 || !strings.HasPrefix(lines[1], "display ")) {
			t.Errorf("opened by %q", out.String())
		}
	})
}
