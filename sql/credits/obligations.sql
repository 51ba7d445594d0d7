-- What a tenant would lose in credits if it were deleted now. tenancy.delete_tenant asks every domain for its own.

CREATE FUNCTION tenancy._obligations_credits(tenant_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As they would be settled now; as they stand where the caller may see no figures.
    RETURN (SELECT jsonb_build_object('pools', count(*), 'credits', sum(o.available), 'held', sum(o.held))
              FROM tenancy.credit_pools AS p
              LEFT JOIN LATERAL tenancy.pool_figures(p.pool_id) AS f ON true
             CROSS JOIN LATERAL (SELECT coalesce(f.available, p.balance - p.held) AS available, coalesce(f.held, p.held) AS held) AS o
             WHERE p.tenant_id = _obligations_credits.tenant_id AND (o.available > 0 OR o.held > 0)
            HAVING count(*) > 0);
END
$$;

COMMENT ON FUNCTION tenancy._obligations_credits(text) IS
'How many pools of a tenant still hold credits, how many are available in them and how many are held, without what has expired; NULL: none.';
