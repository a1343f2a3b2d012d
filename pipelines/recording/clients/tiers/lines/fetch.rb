# Ruby's net/http, a connection for each host: reads METHOD TAB URL TAB BODY a line, answers with the status.
require 'json'
require 'net/http'
require 'openssl'

told = JSON.parse(ENV['JA4REC_TOLD'])
connections = Hash.new do |all, key|
  all[key] = Net::HTTP.start(key[0], key[1], use_ssl: true, ca_file: ENV['JA4REC_CA'], read_timeout: 20)
end
$stdout.sync = true
$stdin.each_line do |line|
  method, url, body = line.chomp.split("\t", 3)
  uri = URI(url)
  request = Net::HTTPGenericRequest.new(method, !body.to_s.empty?, method != 'HEAD', uri.request_uri, told['headers'])
  unless body.to_s.empty?
    request.body = body
    request['Content-Type'] = 'application/x-www-form-urlencoded'
  end
  begin
    puts connections[[uri.host, uri.port]].request(request).code
  rescue StandardError => error
    warn error
    connections.delete([uri.host, uri.port])
    puts 0
  end
end
