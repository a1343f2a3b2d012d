<?php
// PHP's curl on one handle: reads METHOD TAB URL TAB BODY a line, answers with the status.
$told = json_decode(getenv('JA4REC_TOLD'), true);
$handle = curl_init();
while (($line = fgets(STDIN)) !== false) {
    [$method, $url, $body] = explode("\t", rtrim($line, "\n"));
    curl_reset($handle);
    $headers = [];
    foreach ($told['headers'] as $name => $value) {
        if ($name !== 'Accept-Encoding') $headers[] = "$name: $value";
    }
    curl_setopt_array($handle, [
        CURLOPT_URL => $url, CURLOPT_CUSTOMREQUEST => $method, CURLOPT_RETURNTRANSFER => true, CURLOPT_HTTPHEADER => $headers,
        CURLOPT_CAINFO => getenv('JA4REC_CA'), CURLOPT_TIMEOUT => 20, CURLOPT_NOBODY => $method === 'HEAD',
    ]);
    if (isset($told['headers']['Accept-Encoding'])) curl_setopt($handle, CURLOPT_ENCODING, '');
    if ($body !== '') curl_setopt($handle, CURLOPT_POSTFIELDS, $body);
    curl_exec($handle);
    echo curl_getinfo($handle, CURLINFO_RESPONSE_CODE), "\n";
}
