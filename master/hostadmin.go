package master

import (
	"context"
	"time"

	"verdecmd/monitor"
)

func (b backend) SetManagerPassword(ctx context.Context, password string) error {
	return refusal(b.m.host.SetPassword(ctx, password))
}

func (b backend) Tokens() []monitor.Token { return b.m.host.Tokens() }

func (b backend) CreateToken(ctx context.Context, w monitor.TokenWish) (monitor.NewToken, error) {
	t, err := b.m.host.CreateToken(ctx, w)
	return t, refusal(err)
}

func (b backend) DeleteToken(ctx context.Context, id uint64) error {
	return refusal(b.m.host.DeleteToken(ctx, id))
}

func (b backend) ReplaceServer(ctx context.Context, id uint64, ttl time.Duration, force bool) (monitor.NewToken, error) {
	t, err := b.m.host.Replace(ctx, id, ttl, force)
	return t, refusal(err)
}

func (b backend) Revocations() ([]monitor.Revoked, time.Time) {
	var out []monitor.Revoked
	for _, r := range b.m.host.Revocations() {
		out = append(out, monitor.Revoked{ID: r.ID, Serial: r.Serial, Server: r.Server, Name: r.Name, Why: r.Why, At: r.At, Until: r.Until})
	}
	return out, b.m.host.UnknownSince()
}
