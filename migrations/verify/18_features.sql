-- expect: 58
SELECT count() FROM system.columns WHERE database = '${database}' AND table IN ('features', 'detections') AND name IN ('transport_seen', 'reqs_per_conn', 'peak_1m_share', 'port_exhaustion_ratio', 'request_size_variance', 'slow_requests', 'slow_request_ratio', 'favicon_requested', 'direct_access_ratio', 'anomalous_payload_ratio', 'has_accept_language', 'has_cookie', 'has_referer', 'has_sec_ch_ua', 'is_ua_rotating', 'sec_ch_mobile_mismatch', 'unusual_content_type_ratio', 'distinct_header_orders', 'header_order_confidence', 'true_window_size', 'tcp_jitter_variance', 'mss_mobile_mismatch', 'iat_benford_chi2', 'path_transition_entropy', 'seq_id_ratio', 'cascade_ratio', 'asset_after_page_ms', 'asset_load_stddev', 'root_to_first_asset_delay');

-- expect: 2
SELECT count() FROM system.columns WHERE database = '${database}' AND table IN ('features_now', 'detections_now') AND name = 'transport_seen';
