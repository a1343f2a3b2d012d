-- expect: 26
SELECT count() FROM system.columns WHERE database = '${database}' AND table = 'http_logs' AND name IN (
    'has_authorization', 'keepalive_index', 'useragent_ip', 'lost_before', 'truncated', 'server_tls_resumed',
    'h2_signature', 'h2_settings', 'h2_header_table_size', 'h2_enable_push', 'h2_max_concurrent_streams', 'h2_initial_window_size',
    'h2_max_frame_size', 'h2_max_header_list_size', 'h2_enable_connect_protocol', 'h2_no_rfc7540_priorities', 'h2_window_update', 'h2_priorities',
    'h2_headers_priority', 'h2_pseudo_order', 'server_tls_version', 'server_tls_cipher', 'server_tls_sni', 'server_ja4',
    'server_ja3', 'server_tls_differs');
