#!/usr/bin/env php
<?php
// An example client of verdecmd's admin socket in PHP.
//
//     client.php SOCKET [COUNT]
//
// It lists the users with a session, shows a refusal, and follows events until
// COUNT of them came (without COUNT: for ever).

declare(strict_types=1);

/** The master has refused a command, or it failed. */
class Refused extends Exception
{
    public function __construct(public readonly string $reply, public readonly string $end)
    {
        parent::__construct("$reply $end");
    }
}

/** One connection to the cluster master. */
class Master
{
    public readonly string $greeting;
    private $socket;
    private array $events = []; // those that came while a reply was awaited

    public function __construct(string $path)
    {
        $socket = @stream_socket_client("unix://$path", $errno, $why);
        if ($socket === false) {
            throw new RuntimeException("cannot reach the cluster master at $path: $why");
        }
        $this->socket = $socket;
        stream_set_timeout($socket, 31536000); // PHP would give up after a minute
        $this->greeting = $this->ask('hello')[1]; // and the connection stays
        $this->ask('format json');
    }

    /** The next line: code, mark, and the rest. */
    private function line(): array
    {
        $line = fgets($this->socket);
        if ($line === false || !str_ends_with($line, "\n")) {
            throw new RuntimeException('the connection was lost');
        }
        return [substr($line, 0, 3), $line[3], substr($line, 4, -1)];
    }

    /** The rows and the last line of the reply, as they came. */
    public function ask(string $command): array
    {
        $rest = "$command\n";
        while ($rest !== '') {
            $n = fwrite($this->socket, $rest);
            if ($n === false || $n === 0) {
                throw new RuntimeException('the connection was lost');
            }
            $rest = substr($rest, $n);
        }
        $rows = [];
        while (true) {
            [$code, $mark, $data] = $this->line();
            if ($code[0] === '6') {
                $this->events[] = [$code, $data];
            } elseif ($code[0] === '1') {
                continue; // progress
            } elseif ($mark === '-') {
                $rows[] = $data;
            } elseif ($code[0] === '2') {
                return [$rows, $data];
            } else {
                throw new Refused($code, $data);
            }
        }
    }

    /** The rows and the last line of the reply, decoded. */
    public function records(string $command): array
    {
        [$rows, $end] = $this->ask($command);
        return [array_map(decode(...), $rows), decode($end)];
    }

    /** The code of the next event, and the event. */
    public function event(): array
    {
        while ($this->events === []) {
            [$code, , $data] = $this->line();
            if ($code[0] === '6') {
                $this->events[] = [$code, $data];
            }
        }
        [$code, $data] = array_shift($this->events);
        return [$code, decode($data)];
    }
}

function decode(string $data): array
{
    return json_decode($data, true, 512, JSON_THROW_ON_ERROR);
}

/** One word of a command, of any text. */
function quote(string $text): string
{
    return '"' . strtr($text, ['"' => '\\"', '\\' => '\\\\', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t']) . '"';
}

$master = new Master($argv[1]);
$count = (int)($argv[2] ?? -1);
echo "greeting: {$master->greeting}\n";

[$users, $end] = $master->records('users');
foreach ($users as $user) {
    echo "{$user['user']} on server {$user['server']}: {$user['state']}\n";
}

try {
    $master->ask('user ' . quote('no "such" user'));
} catch (Refused $refused) {
    $why = decode($refused->end);
    echo "refused: {$refused->reply} {$why['status']}: {$why['id']}: {$why['msg']}\n";
}

// Events after the instant of the list: nothing is missed or comes twice.
$master->ask("events on since={$end['seq']}");
echo "waiting for events after {$end['seq']}\n";
while ($count !== 0) {
    [$code, $event] = $master->event();
    if ($code === '650') {
        echo "event: {$event['type']}\n";
        $count--;
    } elseif ($code === '651') {
        echo "events were lost: list again\n";
    }
}
$master->ask('quit');
