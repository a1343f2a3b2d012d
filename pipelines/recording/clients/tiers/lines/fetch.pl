# Perl's LWP: reads METHOD TAB URL TAB BODY a line, answers with the status.
use strict;
use warnings;
use HTTP::Request;
use JSON::PP;
use LWP::UserAgent;

$| = 1;
my $told = decode_json($ENV{JA4REC_TOLD});
my $client = LWP::UserAgent->new(keep_alive => 4, timeout => 20, max_redirect => 0, ssl_opts => { SSL_ca_file => $ENV{JA4REC_CA} });
while (my $line = <STDIN>) {
    chomp $line;
    my ($method, $url, $body) = split /\t/, $line, 3;
    my $request = HTTP::Request->new($method, $url, [%{ $told->{headers} }]);
    if ($body) {
        $request->content($body);
        $request->header('Content-Type' => 'application/x-www-form-urlencoded', 'Content-Length' => length $body);
    }
    print $client->request($request)->code, "\n";
}
