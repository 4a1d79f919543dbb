package satellite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/session"
	"verdecmd/settings"
)

// ExitReferred is win4's exit code when the desktop's place is on another
// satellite; the last line on standard output is then
// "referred SERVER-ID NAME ADDRESS".
const ExitReferred = 3

// maxShown bounds what of one answer is shown, in bytes.
const maxShown = 4096

// ReferredError says where to go.
type ReferredError struct{ Name string }

func (e *ReferredError) Error() string { return "the desktop is on " + e.Name }

// ExitCode is the exit code of the program for this error.
func (e *ReferredError) ExitCode() int { return ExitReferred }

// win4Command is what users type.
func win4Command() *cobra.Command {
	var socket, user, shot string
	c := &cobra.Command{
		Use:   "win4",
		Short: "Log in: start your desktop, or find the one that runs",
		Long: `Start your desktop, or find the one that runs.

win4 asks the satellite on this computer. Where you have a desktop already, you
get that one. Else the least loaded server of the cluster gets you: if it is this
one, the desktop is started here; if it is another one, win4 says which, and a
place is kept for you there for a while: run win4 there (exit code 3).

A desktop runs on after you leave. Shutting it down from inside ends it.`,
		Example: "  win4\n  win4 --screenshot desktop.png",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return win4(ctx, socket, user, shot, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	def, _ := settings.Global().Find(settings.SatSocket)
	c.Flags().StringVar(&socket, "satellite", def.Default, "`path` of the satellite's socket")
	c.Flags().StringVar(&user, "user", "", "log in as the user of this `name` (only the satellite's own user may)")
	c.Flags().StringVar(&shot, "screenshot", "", "write what is on the screen to this PNG `file`")
	return c
}

// win4 logs in over a satellite's local socket.
func win4(ctx context.Context, socket, user, shot string, out, progress io.Writer) error {
	cc, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(session.ClientCredentials()), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	defer cc.Close()
	client := pb.NewLoginClient(cc)
	if shot != "" {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		reply, err := client.Screenshot(ctx, &pb.ScreenshotRequest{User: user})
		if err != nil {
			return explain(err, socket)
		}
		if err := os.WriteFile(shot, reply.Png, 0o600); err != nil {
			return fmt.Errorf("screenshot: %w", err)
		}
		fmt.Fprintf(out, "%s: %d bytes\n", shot, len(reply.Png))
		return nil
	}
	stream, err := client.Open(ctx, &pb.OpenRequest{User: user})
	if err != nil {
		return explain(err, socket)
	}
	last := ""
	for {
		reply, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the satellite ended the login without an answer; see its log")
		}
		if err != nil {
			if errors.Is(ctx.Err(), context.Canceled) {
				return errors.New("interrupted; a desktop that was starting goes on, win4 finds it again")
			}
			return explain(err, socket)
		}
		var done bool
		if last, done, err = show(reply, last, out, progress); done {
			return err
		}
	}
}

// show tells the user what the satellite has answered. last is the progress that
// was shown last; done is whether that was all. The names in an answer come from
// other machines, so nothing is written as it is: neither the terminal nor a
// script that reads the last line takes orders from them.
func show(reply *pb.OpenReply, last string, out, progress io.Writer) (now string, done bool, err error) {
	text := func(s string) string { return wire.Clean(s, maxShown) }
	word := func(s string) string { // in a line that scripts read
		// Not an option of ssh, either.
		return cmp.Or(strings.TrimLeft(strings.Join(strings.Fields(text(s)), "_"), "-"), "?")
	}
	switch k := reply.GetKind().(type) {
	case *pb.OpenReply_Progress:
		now = text(k.Progress.GetText())
		if now != last {
			fmt.Fprintln(progress, "win4: "+now)
		}
		return now, false, nil
	case *pb.OpenReply_Referred:
		r := k.Referred
		name, address := word(r.GetName()), word(r.GetAddress())
		if r.GetExisting() {
			fmt.Fprintf(out, "You have a desktop on %s. Run win4 there: ssh -t %s win4\n", name, address)
		} else {
			fmt.Fprintf(out, "Your place is on %s, kept for %d s. Run win4 there: ssh -t %s win4\n", name, r.GetRemainingS(), address)
		}
		fmt.Fprintf(out, "referred %d %s %s\n", r.GetServerId(), name, address)
		return last, true, &ReferredError{Name: name}
	case *pb.OpenReply_Opened:
		s := k.Opened.GetSession()
		verb := "runs"
		if k.Opened.GetExisting() {
			verb = "was there already and is " + text(s.GetState())
		}
		fmt.Fprintf(out, "Your desktop %s here: session %s, image %s.\n", verb, text(s.GetId()), text(s.GetImage()))
		fmt.Fprintf(out, "display %s\n", text(s.GetDisplay()))
		return last, true, nil
	}
	return last, false, nil // a kind of a newer satellite
}

// explain turns an error of the call into words for the user.
func explain(err error, socket string) error {
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable && wire.KindOf(wire.FromStatus(err)) == wire.Unreachable && len(s.Details()) == 0 {
		if _, serr := os.Stat(filepath.Clean(socket)); errors.Is(serr, os.ErrNotExist) {
			return fmt.Errorf("no satellite on this computer: %s does not exist. Is it running? See: systemctl status verdecmd-satellite", socket)
		}
		if strings.Contains(s.Message(), "connection refused") {
			return fmt.Errorf("the satellite at %s does not answer. Is it running? See: systemctl status verdecmd-satellite", socket)
		}
		return fmt.Errorf("the satellite at %s does not answer: %w", socket, wire.FromStatus(err))
	}
	return wire.FromStatus(err)
}
