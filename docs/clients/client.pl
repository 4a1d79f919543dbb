#!/usr/bin/perl
# An example client of verdecmd's admin socket in Perl, with what Perl brings.
#
#	client.pl SOCKET [COUNT]
#
# It lists the users with a session, shows a refusal, and follows events until
# COUNT of them came (without COUNT: for ever).
use strict;
use warnings;
use IO::Socket::UNIX;
use JSON::PP ();

binmode STDOUT, ':encoding(UTF-8)';
$| = 1;

my ($path, $count) = @ARGV;
$count //= -1;
my $master = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)
	or die "cannot reach the cluster master at $path: $!\n";
my @events; # those that came while a reply was awaited

# The next line: code, mark, and the rest.
sub next_line {
	my $line = <$master>;
	die "the connection was lost\n" unless defined $line && $line =~ /^(\d{3})([- ])(.*)\n\z/;
	return ($1, $2, $3);
}

# The code and the last line of the reply, and its rows, as they came.
sub ask {
	my ($command) = @_;
	print {$master} "$command\n";
	$master->flush;
	my @rows;
	while (1) {
		my ($code, $mark, $data) = next_line();
		if ($code =~ /^6/)   { push @events, [$code, $data] }
		elsif ($code =~ /^1/) { next } # progress
		elsif ($mark eq '-') { push @rows, $data }
		else                 { return ($code, $data, @rows) }
	}
}

# As ask, for what must not be refused.
sub must {
	my ($code, $end, @rows) = ask(@_);
	die "refused: $code $end\n" unless $code =~ /^2/;
	return ($end, @rows);
}

sub next_event {
	until (@events) {
		my ($code, undef, $data) = next_line();
		push @events, [$code, $data] if $code =~ /^6/;
	}
	my ($code, $data) = @{shift @events};
	return ($code, decode($data));
}

sub decode { return JSON::PP->new->utf8->decode($_[0]) }

# One word of a command, of any text.
sub quote {
	my ($text) = @_;
	my %escape = ('"' => '\\"', '\\' => '\\\\', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t');
	$text =~ s/(["\\\n\r\t])/$escape{$1}/g;
	return "\"$text\"";
}

my ($greeting) = must('hello'); # and the connection stays
print "greeting: $greeting\n";
must('format json');

my ($end, @rows) = must('users');
for my $user (map { decode($_) } @rows) {
	print "$user->{user} on server $user->{server}: $user->{state}\n";
}

my ($code, $refusal) = ask('user ' . quote('no "such" user'));
if ($code !~ /^2/) {
	my $why = decode($refusal);
	print "refused: $code $why->{status}: $why->{id}: $why->{msg}\n";
}

# Events after the instant of the list: nothing is missed or comes twice.
my $seq = decode($end)->{seq};
must("events on since=$seq");
print "waiting for events after $seq\n";
while ($count != 0) {
	my ($kind, $event) = next_event();
	if ($kind eq '650') {
		print "event: $event->{type}\n";
		$count--;
	} elsif ($kind eq '651') {
		print "events were lost: list again\n";
	}
}
must('quit');
